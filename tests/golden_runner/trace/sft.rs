//! Traces of `SFTTrainer`.

use align_model::{
    causal_lm::TokenBatch,
    decoder::Decoder,
    logprob::{LogProbPass, Targets},
    number::UnitInterval,
    sft::{SftConfig, SftExample, SftLoss, SftTrainer},
    train::{Step, gradient_norm},
};
use burn::optim::{GradientsAccumulator, GradientsParams};
use serde_json::Value;

use super::{Check, GoldenFile, LOSS, METRIC, Start, compare_gradients, number, rows};

pub(super) fn run(file: &GoldenFile, check: &mut Check) {
    let Start { model, family, .. } = Start::of(file);
    let config = config(&file.json["config"]);
    let steps = file.json["steps"].as_array().unwrap();
    let windows: Vec<Vec<Vec<SftExample>>> =
        steps.iter().map(|step| examples(&step["micro_batches"])).collect();
    let gradients = first_gradients(&model, &windows[0], config.loss);
    compare_gradients(check, &model, gradients, &super::stored_gradients(file), &super::names(family));

    let total = number(&file.json["config"]["max_steps"]) as u64;
    let mut trainer = SftTrainer::new(model, &config, total).unwrap();
    for (step, window) in steps.iter().zip(&windows) {
        check.case();
        let report = trainer.step(window.concat().as_slice()).unwrap();
        super::compare_step(check, step, &report, |name| match name {
            "learning_rate" | "num_tokens" => Some(LOSS),
            // TRL averages these over forward passes, whatever their sizes.
            _ => (window.len() == 1).then_some(METRIC),
        });
    }
    super::compare_last(file, check, trainer.model(), family);
}

fn config(json: &Value) -> SftConfig {
    let loss = match json["loss_type"].as_str().unwrap_or("nll") {
        "nll" | "chunked_nll" => SftLoss::Nll {
            label_smoothing: UnitInterval::new(json.get("label_smoothing_factor").map_or(0.0, number)),
        },
        "dft" => SftLoss::Dft {},
        other => panic!("no loss {other}"),
    };
    let batch = number(&json["per_device_train_batch_size"]) as usize;
    let accumulation = number(&json["gradient_accumulation_steps"]) as usize;
    SftConfig {
        loss,
        batch_size: (batch * accumulation).try_into().unwrap(),
        micro_batch_size: batch.try_into().unwrap(),
        update: super::update(json),
        ..SftConfig::default()
    }
}

/// Each forward pass's samples, padding taken off.
fn examples(micro_batches: &Value) -> Vec<Vec<SftExample>> {
    let one = |micro: &Value| {
        let inputs = &micro["inputs"];
        let (tokens, labels, mask) =
            (rows(&inputs["input_ids"]), rows(&inputs["labels"]), rows(&inputs["attention_mask"]));
        let row = |i: usize| {
            let real: Vec<usize> = (0..tokens[i].len()).filter(|&c| mask[i][c] != 0).collect();
            SftExample {
                tokens: real.iter().map(|&c| tokens[i][c] as u32).collect(),
                is_target: real.iter().map(|&c| labels[i][c] != -100).collect(),
            }
        };
        (0..tokens.len()).map(row).collect()
    };
    micro_batches.as_array().unwrap().iter().map(one).collect()
}

fn first_gradients(model: &Decoder, window: &[Vec<SftExample>], loss: SftLoss) -> GradientsParams {
    let targets: usize = window.iter().flatten().map(SftExample::targets).sum();
    let mut gradients = GradientsAccumulator::new();
    for examples in window {
        let sequences: Vec<&[u32]> = examples.iter().map(|e| e.tokens.as_slice()).collect();
        let selected: Vec<bool> = examples.iter().flat_map(|e| e.is_target.clone()).collect();
        let batch = TokenBatch::from_sequences(&sequences);
        let pass = LogProbPass::forward(model, &batch, &Targets::selected(&batch, &selected));
        let (of_pass, ..) = pass.backward_per_token(|scores| loss.per_token(scores) / targets as f64);
        gradients.accumulate(model, of_pass);
    }
    let mut gradients = gradients.grads();
    assert!(gradient_norm(&mut gradients, model).is_finite());
    gradients
}
