//! Process reward models.

use align_model::{
    checkpoint::{Resumable as _, State},
    data::StepwiseRecord,
    number::Positive,
    pretrained::ClassifierKind,
    tokenizer::Tokenizer,
    train::{Step as _, UpdateConfig},
};
use align_reward::{
    model::RewardModel,
    trainer::{
        LabelOn, ProcessConfig, ProcessExample, ProcessLeftOut, ProcessTokenizer, ProcessTrainer,
        RewardConfigError, RewardTrainingError, StepLabel, StepTarget,
    },
};
use serde_json::json;

use crate::toy::{decoder, head, parameters, tokens};

/// A tokenizer of single characters: `a` is 3, the line break 2, the beginning of a text 1.
fn tokenizer() -> Tokenizer {
    let mut vocabulary = serde_json::Map::new();
    for (id, token) in ["<unk>", "<s>", "\n"].into_iter().enumerate() {
        vocabulary.insert(token.into(), id.into());
    }
    for (index, letter) in ('a'..='z').enumerate() {
        vocabulary.insert(letter.to_string(), (index + 3).into());
    }
    let added = json!([{
        "id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    }]);
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "[\\s\\S]" }, "behavior": "Isolated", "invert": false },
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tokenizer.json"), file.to_string()).unwrap();
    std::fs::write(directory.path().join("tokenizer_config.json"), json!({ "bos_token": "<s>" }).to_string())
        .unwrap();
    Tokenizer::from_directory(directory.path()).unwrap()
}

fn record() -> StepwiseRecord {
    StepwiseRecord {
        prompt: "ab".into(),
        completions: vec!["c".into(), "de".into()],
        labels: vec![true, false],
    }
}

fn label(position: usize, class: usize) -> StepLabel {
    StepLabel { position, target: StepTarget::Class(class) }
}

#[test]
fn labels_stand_at_the_ends_of_steps() {
    let tokenizer = tokenizer();
    let prepare = |label_on, max_length| {
        let tokenizer =
            ProcessTokenizer { tokenizer: &tokenizer, step_separator: "\n", label_on, max_length };
        tokenizer.example(&record()).unwrap()
    };
    let all = vec![1, 3, 4, 5, 2, 6, 7, 2];
    let every = ProcessExample { tokens: all.clone(), labels: vec![label(4, 1), label(7, 0)] };
    assert_eq!(prepare(LabelOn::EveryStep, 8), (Ok(every), 0));
    let last = ProcessExample { tokens: all.clone(), labels: vec![label(7, 0)] };
    assert_eq!(prepare(LabelOn::LastStep, 8), (Ok(last), 0));
    let cut = ProcessExample { tokens: all[..7].to_vec(), labels: vec![label(4, 1)] };
    assert_eq!(prepare(LabelOn::EveryStep, 7), (Ok(cut), 1));
    assert_eq!(prepare(LabelOn::EveryStep, 4), (Err(ProcessLeftOut::NoLabelLeft), 2));
}

fn trainer(micro: usize, steps: u64) -> ProcessTrainer<align_model::decoder::Decoder> {
    let config = ProcessConfig {
        batch_size: 3.try_into().unwrap(),
        micro_batch_size: micro.try_into().unwrap(),
        update: UpdateConfig { learning_rate: Positive::new(1e-2), ..UpdateConfig::default() },
        ..ProcessConfig::default()
    };
    let model = RewardModel::new(decoder(), head(ClassifierKind::Token, 2));
    ProcessTrainer::new(model, &config, steps).unwrap()
}

fn batch() -> Vec<ProcessExample> {
    let soft = StepLabel { position: 3, target: StepTarget::Distribution(vec![0.25, 0.75]) };
    vec![
        ProcessExample { tokens: tokens(8, 1), labels: vec![label(4, 1), label(7, 0)] },
        ProcessExample { tokens: tokens(5, 2), labels: vec![soft] },
        ProcessExample { tokens: tokens(9, 3), labels: vec![label(2, 0), label(5, 0), label(8, 1)] },
    ]
}

#[test]
fn passes_change_nothing_and_steps_are_learnt() {
    let (mut one, mut three) = (trainer(3, 40), trainer(1, 40));
    let first = one.step(&batch()[..]).unwrap();
    let same = three.step(&batch()[..]).unwrap();
    assert!((first.loss - same.loss).abs() < 1e-5 && (first.grad_norm / same.grad_norm - 1.0).abs() < 1e-5);
    assert_eq!((first.labels, first.num_tokens), (6, 22));
    let mut last = first;
    for _ in 1..40 {
        last = one.step(&batch()[..]).unwrap();
    }
    assert!(last.accuracy > 0.99 && last.loss < 0.3 * first.loss, "{first:?} {last:?}");
    let probabilities = one.model().step_probabilities(&batch()[0].tokens, &[4, 7], 1);
    assert!(probabilities[0] > 0.7 && probabilities[1] < 0.3, "{probabilities:?}");
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let (mut whole, mut first) = (trainer(2, 2), trainer(2, 2));
    whole.step(&batch()[..]).unwrap();
    first.step(&batch()[..]).unwrap();
    let mut state = State::new();
    first.save(&mut state).unwrap();
    let mut second = trainer(2, 2);
    second.restore(&mut state).unwrap();
    assert_eq!(whole.step(&batch()[..]).unwrap(), second.step(&batch()[..]).unwrap());
    assert_eq!(parameters(whole.model()), parameters(second.model()));
}

#[test]
fn what_cannot_be_learnt_from_is_named() {
    let mut trainer = trainer(1, 1);
    let mut step = |example: ProcessExample| trainer.step(&[example][..]).unwrap_err();
    let unlabelled = ProcessExample { tokens: vec![3], labels: Vec::new() };
    assert_eq!(step(unlabelled), RewardTrainingError::Unlabelled { index: 0 });
    let with = |label| ProcessExample { tokens: tokens(5, 1), labels: vec![label] };
    let error = step(with(label(5, 0))).to_string();
    assert_eq!(error, "example 0 of this batch: a label's position is 5, expected below its 5 tokens");
    let error = step(with(label(1, 2))).to_string();
    assert_eq!(error, "example 0 of this batch: a class is 2, expected below the head's 2 labels");
    let half = StepLabel { position: 1, target: StepTarget::Distribution(vec![0.5, 0.25]) };
    assert!(step(with(half)).to_string().contains("2 probabilities with the sum 1"));
    let model = RewardModel::new(decoder(), head(ClassifierKind::Token, 1));
    let error = ProcessTrainer::new(model, &ProcessConfig::default(), 1).unwrap_err();
    assert!(matches!(error, RewardConfigError::Labels { found: 1, expected: 2, .. }));
}
