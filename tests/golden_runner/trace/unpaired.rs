//! Traces of `KTOTrainer`.

use align_dpo::{KtoConfig, KtoTrainer, Reference};
use align_model::{number::Positive, preference::UnpairedExample, train::Step};
use serde_json::Value;

use super::{
    super::loss_preference::kto, Check, GoldenFile, LOSS, METRIC, Start, compare_gradients, number,
    prompt_and_completion, rows,
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) {
    let start = Start::of(file);
    let reference = Reference::Model(start.reference());
    let Start { model, family, .. } = start;
    let config = config(&file.json["config"]);
    let steps = file.json["steps"].as_array().unwrap();
    let windows: Vec<Vec<Vec<UnpairedExample>>> = steps
        .iter()
        .map(|step| {
            step["micro_batches"].as_array().unwrap().iter().map(|m| examples(&m["inputs"])).collect()
        })
        .collect();
    let total = number(&file.json["config"]["max_steps"]) as u64;
    let mut trainer = KtoTrainer::new(model, reference, &config, total).unwrap();
    let (gradients, _) = trainer.gradients(&windows[0].concat()).unwrap();
    compare_gradients(
        check,
        trainer.model(),
        gradients,
        &super::stored_gradients(file),
        &super::names(family),
    );
    for (step, window) in steps.iter().zip(&windows) {
        check.case();
        let report = trainer.step(window.concat().as_slice()).unwrap();
        super::compare_step(check, step, &report, |name| match name {
            "learning_rate" | "num_tokens" => Some(LOSS),
            "kl" => Some(METRIC),
            // TRL averages these over forward passes, whatever their sizes and classes.
            _ => (window.len() == 1).then_some(METRIC),
        });
    }
    super::compare_last(file, check, trainer.model(), family);
}

fn config(json: &Value) -> KtoConfig {
    let batch = number(&json["per_device_train_batch_size"]) as usize;
    let accumulation = number(&json["gradient_accumulation_steps"]) as usize;
    KtoConfig {
        loss: kto(json),
        beta: Positive::new(number(&json["beta"])),
        batch_size: (batch * accumulation).try_into().unwrap(),
        micro_batch_size: batch.try_into().unwrap(),
        loss_batch_size: Some(batch.try_into().unwrap()),
        max_length: (number(&json["max_length"]) as usize).try_into().unwrap(),
        update: super::update(json),
        ..KtoConfig::default()
    }
}

/// A forward pass's examples, padding taken off. The mismatched ones are for the trainer to make.
fn examples(inputs: &Value) -> Vec<UnpairedExample> {
    let of = |name: &str| rows(&inputs[name]);
    let (tokens, attention, mask) = (of("input_ids"), of("attention_mask"), of("completion_mask"));
    let labels = inputs["label"].as_array().unwrap();
    let example = |i: usize| {
        let (prompt, completion) =
            prompt_and_completion(&tokens[i], &attention[i], |column| mask[i][column] != 0);
        UnpairedExample { prompt, completion, desirable: number(&labels[i]) != 0.0, slice: None }
    };
    (0..tokens.len()).map(example).collect()
}
