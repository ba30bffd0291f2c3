//! Which answers are better: a model that scores them, and how well each model tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use align_model::{
    causal_lm::TokenBatch,
    chat::Message,
    data::{Located, PreferenceRecord, TemplateColumns},
    decoder::Decoder,
    logprob::{Targets, token_log_probs},
    number::Proportion,
    preference::{OnTooLong, PreferenceExample, PreferenceTokenizer},
    pretrained::ClassifierKind,
};
use align_reward::{
    model::{RewardModel, ScoreHead},
    trainer::{RewardTrainer, evaluate_pairs},
};
use anyhow::ensure;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde::Serialize;

use super::{
    evaluation::Answer,
    lesson::{Lesson, TrainingRecord},
    workshop::Workshop,
    world::{LONGEST_SEQUENCE, Preference, Task, Virtue, worth},
};

/// A model that scores answers, and how well it does.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RewardResults {
    /// The training run.
    pub(super) training: TrainingRecord,
    /// Held-out pairs whose better answer scores higher.
    pub(super) accuracy: Proportion,
    /// The same by what makes the answer better.
    pub(super) accuracy_by_virtue: BTreeMap<&'static str, Proportion>,
}

/// Answers of two models to the same requests, compared by somebody who knows the world.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Duel {
    /// The second model's answers that are better, of those that are not equally good.
    pub(super) wins: Proportion,
    /// Answers that are equally good.
    pub(super) ties: usize,
}

/// Trains a model that scores answers, from a language model and pairs of answers.
pub(super) fn reward_model(
    workshop: &Workshop,
    start: &Decoder,
) -> anyhow::Result<(RewardModel<Decoder>, RewardResults)> {
    let sizes = workshop.plan.reward;
    let examples = examples(workshop, &workshop.world.preferences(sizes.samples()))?;
    let config = sizes.reward_config(workshop.seed)?;
    let architecture = workshop.architecture.config();
    let mut rng = ChaCha8Rng::seed_from_u64(workshop.seed);
    let (shape, width) = ([1, architecture.hidden_size], HEAD_WIDTH);
    let head = ScoreHead::random(ClassifierKind::Sequence, shape, width, &mut rng, workshop.device());
    let model = RewardModel::new(start.clone().without_head(), head);
    let mut trainer = RewardTrainer::new(model, &config, sizes.steps)?;
    let settings = serde_json::to_value(&config)?;
    let curves = ["loss", "accuracy"];
    let lesson = Lesson { name: "reward", examples, sizes, config: settings, curves };
    let training = lesson.teach(workshop, &mut trainer)?;

    let held_out = workshop.world.preferences_about(&workshop.held_out);
    let pairs = self::examples(workshop, &held_out)?;
    let model = trainer.into_model();
    let differences = evaluate_pairs(&model, &pairs, &config)?.differences;
    let is_right = |difference: &f64| *difference > 0.0;
    let of = |virtue: Virtue| {
        let of_virtue = held_out.iter().zip(&differences).filter(|(pair, _)| pair.virtue == virtue);
        let right: Vec<bool> = of_virtue.map(|(_, difference)| is_right(difference)).collect();
        (virtue.name(), Proportion::new(right.iter().filter(|right| **right).count(), right.len()))
    };
    let right = differences.iter().filter(|difference| is_right(difference)).count();
    let results = RewardResults {
        training,
        accuracy: Proportion::new(right, differences.len()),
        accuracy_by_virtue: Virtue::ALL.into_iter().map(of).collect(),
    };
    Ok((model, results))
}

/// Standard deviation of a fresh head's weights.
const HEAD_WIDTH: f32 = 0.1;

/// How often a model finds the better of two answers to a held-out request more likely.
pub(super) fn preferred(model: &Decoder, workshop: &Workshop) -> anyhow::Result<Proportion> {
    let pairs = examples(workshop, &workshop.world.preferences_about(&workshop.held_out))?;
    let (mut sequences, mut selected) = (Vec::new(), Vec::new());
    for pair in &pairs {
        for answer in [&pair.chosen, &pair.rejected] {
            sequences.push([pair.prompt.as_slice(), answer].concat());
            selected.resize(selected.len() + pair.prompt.len(), false);
            selected.resize(selected.len() + answer.len(), true);
        }
    }
    let batch = TokenBatch::from_sequences(&sequences);
    let log_probs = token_log_probs(model, &batch, &Targets::selected(&batch, &selected)).values.into_data();
    let mut log_probs = log_probs.iter::<f64>();
    let mut sum = |answer: &[u32]| log_probs.by_ref().take(answer.len()).sum::<f64>();
    let right = pairs.iter().filter(|pair| sum(&pair.chosen) > sum(&pair.rejected)).count();
    Ok(Proportion::new(right, pairs.len()))
}

impl Duel {
    /// Compares answers to the held-out requests, in their order.
    pub(super) fn between(tasks: &[Task], first: &[Answer], second: &[Answer]) -> Self {
        let compared = tasks
            .iter()
            .zip(first.iter().zip(second))
            .map(|(task, (first, second))| worth(task, &second.text).cmp(&worth(task, &first.text)));
        let compared: Vec<std::cmp::Ordering> = compared.collect();
        let ties = compared.iter().filter(|order| order.is_eq()).count();
        let wins = compared.iter().filter(|order| order.is_gt()).count();
        Self { wins: Proportion::new(wins, compared.len() - ties), ties }
    }
}

/// Pairs as a model reads them.
pub(super) fn examples(
    workshop: &Workshop,
    preferences: &[Preference],
) -> anyhow::Result<Vec<PreferenceExample>> {
    let tokenizer = PreferenceTokenizer {
        tokenizer: &workshop.tokenizer,
        templates: Some(&workshop.templates),
        max_length: LONGEST_SEQUENCE,
        on_too_long: OnTooLong::LeaveOut,
        now: None,
        slices: Vec::new(),
    };
    let path: Arc<Path> = Path::new("preferences").into();
    let located = |(index, preference): (usize, &Preference)| Located {
        source: 0,
        path: path.clone(),
        line: index + 1,
        record: PreferenceRecord::Chat {
            prompt: vec![Message::user(preference.task.request())],
            chosen: vec![Message::assistant(preference.better.as_str())],
            rejected: vec![Message::assistant(preference.worse.as_str())],
            margin: None,
            template: TemplateColumns::default(),
        },
        extra: serde_json::Map::new(),
    };
    let records: Vec<_> = preferences.iter().enumerate().map(located).collect();
    let samples = tokenizer.pairs(&records)?;
    ensure!(samples.left_out() == 0, "{} preferences say nothing", samples.left_out());
    Ok(samples.examples)
}
