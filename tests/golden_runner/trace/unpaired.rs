//! Traces of `KTOTrainer`, with a reference that is a model and with what it said before.

use align_dpo::{KtoConfig, KtoTrainer, Reference, ReferenceLogProbs, ReferencePolicy};
use align_model::{number::Positive, preference::UnpairedExample, train::Step};
use serde_json::Value;

use super::{
    super::loss_preference::kto, Check, GoldenFile, LOSS, METRIC, Start, compare_gradients, number,
    prompt_and_completion, rows,
};

pub(super) fn run(file: &GoldenFile, check: &mut Check) {
    let start = Start::of(file);
    let frozen = start.reference();
    let Start { model, family, .. } = start;
    let config = config(&file.json["config"]);
    let steps = file.json["steps"].as_array().unwrap();
    let windows: Vec<Vec<UnpairedExample>> = steps
        .iter()
        .map(|step| {
            let micro_batches = step["micro_batches"].as_array().unwrap().iter();
            micro_batches.flat_map(|micro_batch| examples(&micro_batch["inputs"])).collect()
        })
        .collect();
    let mut known = ReferenceLogProbs::of_unpaired(&frozen, &windows.concat(), config.micro_batch_size);
    for window in &windows {
        known.ask_for_step(&frozen, window, &config);
    }
    let precomputed = KtoConfig { reference: ReferencePolicy::Precomputed {}, ..config.clone() };
    let total = number(&file.json["config"]["max_steps"]) as u64;
    for (reference, config) in
        [(Reference::Model(frozen), config), (Reference::Precomputed(known), precomputed)]
    {
        let mut trainer = KtoTrainer::new(model.clone(), reference, &config, total).unwrap();
        let (gradients, _) = trainer.gradients(&windows[0]).unwrap();
        let stored = super::stored_gradients(file);
        compare_gradients(check, trainer.model(), gradients, &stored, &super::names(family));
        for (step, window) in steps.iter().zip(&windows) {
            check.case();
            let report = trainer.step(window.as_slice()).unwrap();
            let passes = step["micro_batches"].as_array().unwrap().len();
            super::compare_step(check, step, &report, |name| match name {
                "learning_rate" | "num_tokens" => Some(LOSS),
                "kl" => Some(METRIC),
                // TRL averages these over forward passes, whatever their sizes and classes.
                _ => (passes == 1).then_some(METRIC),
            });
        }
        super::compare_last(file, check, trainer.model(), family);
    }
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
