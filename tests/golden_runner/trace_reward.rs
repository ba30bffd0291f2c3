//! Traces of TRL's `RewardTrainer`, step by step.

use std::collections::HashMap;

use align_model::{
    adapter::SavedAdapter,
    number::{NonNegative, Positive, ProperFraction, UnitInterval},
    preference::PreferenceExample,
    pretrained::{Checkpoint, Family, SafetensorsWeights, WeightSource, tensor_name},
    train::{AdamWConfig, Step, UpdateConfig},
};
use align_reward::{
    loss::{bradley_terry_loss, centering_loss},
    model::{ScorePass, load_reward_adapter, load_reward_model},
    trainer::{Margins, RewardConfig, RewardObjective, RewardTrainer},
};
use burn::{module::Module, tensor::Tensor};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{number, rows, text},
    trace::Values,
};

const LOSS: Tolerance = Tolerance::Relative(1e-4);
const NORM: Tolerance = Tolerance::Relative(1e-3);
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);
const METRIC: Tolerance = Tolerance::Mixed { relative: 1e-4, absolute: 1e-5 };

pub(super) fn covers(file: &GoldenFile) -> bool {
    file.name.strip_prefix("trace_").and_then(|name| name.split('_').nth(1)) == Some("reward")
}

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let path = file.directory.join(text(&file.json, "model"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let family = checkpoint.architecture().family();
    let device = super::device().autodiff();
    let adapter = file.directory.join(format!("{}_initial_adapter", file.name));
    let model = if adapter.exists() {
        let adapter = SavedAdapter::open(&adapter).unwrap();
        load_reward_adapter(&path, &checkpoint, &adapter, &device).unwrap()
    } else {
        load_reward_model(&path, &checkpoint, &device).unwrap()
    };
    let config = config(&file.json["config"]);
    let steps = file.json["steps"].as_array().unwrap();
    let windows: Vec<Vec<Vec<PreferenceExample>>> = steps
        .iter()
        .map(|step| step["micro_batches"].as_array().unwrap().iter().map(pairs).collect())
        .collect();
    compare_gradients(file, check, &model, family, &windows[0]);

    let total = number(&file.json["config"]["max_steps"]) as u64;
    let mut trainer = RewardTrainer::new(model, &config, total).unwrap();
    for (step, window) in steps.iter().zip(&windows) {
        check.case();
        let at = format!("step {}", step["step"]);
        let report = trainer.step(window.concat().as_slice()).unwrap();
        check.close_scalar(&format!("{at} loss"), report.loss, number(&step["loss"]), LOSS);
        check.close_scalar(&format!("{at} grad_norm"), report.grad_norm, number(&step["grad_norm"]), NORM);
        let logged = &step["logged"];
        let mut compare = |name: &str, value: f64, tolerance: Tolerance| {
            if let Some(expected) = logged.get(name) {
                check.close_scalar(&format!("{at} {name}"), value, number(expected), tolerance);
            }
        };
        compare("learning_rate", report.learning_rate, LOSS);
        compare("num_tokens", report.num_tokens as f64, LOSS);
        compare("mean_reward", report.mean_reward, METRIC);
        compare("accuracy", report.accuracy.unwrap(), METRIC);
        compare("margin", report.margin.unwrap(), METRIC);
        // TRL averages the extremes of forward passes.
        if window.len() == 1 {
            compare("min_reward", report.min_reward, METRIC);
            compare("max_reward", report.max_reward, METRIC);
        }
    }
    Ok(())
}

fn config(json: &Value) -> RewardConfig {
    let positive = |key: &str| Positive::try_from(number(&json[key])).unwrap();
    let fraction = |key: &str| ProperFraction::try_from(number(&json[key])).unwrap();
    let warmup_steps = Some(number(&json["warmup_steps"]) as u64);
    let options = &json["lr_scheduler_kwargs"];
    let schedule =
        super::schedules::schedule(text(json, "lr_scheduler_type"), warmup_steps, options).unwrap();
    let batch = number(&json["per_device_train_batch_size"]) as usize;
    let accumulation = number(&json["gradient_accumulation_steps"]) as usize;
    RewardConfig {
        objective: RewardObjective::Pairs {
            center_rewards_coefficient: coefficient(json),
            label_smoothing: UnitInterval::new(0.0),
            margins: Margins::Use,
        },
        batch_size: (batch * accumulation).try_into().unwrap(),
        micro_batch_size: batch.try_into().unwrap(),
        update: UpdateConfig {
            learning_rate: positive("learning_rate"),
            schedule,
            optimizer: AdamWConfig {
                beta1: fraction("adam_beta1"),
                beta2: fraction("adam_beta2"),
                epsilon: positive("adam_epsilon"),
                weight_decay: NonNegative::try_from(number(&json["weight_decay"])).unwrap(),
                ..AdamWConfig::default()
            },
            max_grad_norm: positive("max_grad_norm"),
        },
        ..RewardConfig::default()
    }
}

fn coefficient(json: &Value) -> Option<Positive> {
    json["center_rewards_coefficient"].as_f64().and_then(|coefficient| Positive::try_from(coefficient).ok())
}

/// A forward pass's pairs, padding taken off. What both sequences begin with is taken for the prompt.
fn pairs(micro: &Value) -> Vec<PreferenceExample> {
    let inputs = &micro["inputs"];
    let (tokens, mask) = (rows(&inputs["input_ids"]), rows(&inputs["attention_mask"]));
    let real = |row: usize| -> Vec<u32> {
        (0..tokens[row].len()).filter(|&c| mask[row][c] != 0).map(|c| tokens[row][c] as u32).collect()
    };
    let count = tokens.len() / 2;
    let pair = |index: usize| {
        let (mut chosen, mut rejected) = (real(index), real(index + count));
        let shorter = chosen.len().min(rejected.len());
        let shared = chosen.iter().zip(&rejected).take(shorter - 1).take_while(|(a, b)| a == b).count();
        let prompt = chosen[..shared].to_vec();
        (chosen, rejected) = (chosen.split_off(shared), rejected.split_off(shared));
        let margin = inputs["margin"].as_array().map(|margins| number(&margins[index]) as f32);
        PreferenceExample { prompt, chosen, rejected, gold: None, margin, slice: None }
    };
    (0..count).map(pair).collect()
}

/// Gradients of the first step against the stored ones; every sequence is laid out whole, as TRL does.
fn compare_gradients<M: align_model::causal_lm::CausalLm>(
    file: &GoldenFile,
    check: &mut Check,
    model: &align_reward::model::RewardModel<M>,
    family: Family,
    window: &[Vec<PreferenceExample>],
) {
    check.case();
    let path = file.directory.join(format!("{}_step1_grads.safetensors", file.name));
    let stored = SafetensorsWeights::open_file(&path).unwrap();
    let coefficient = coefficient(&file.json["config"]);
    let mut sums: HashMap<String, Vec<f64>> = HashMap::new();
    for pairs in window {
        let whole = |response: fn(&PreferenceExample) -> &Vec<u32>| {
            pairs.iter().map(move |pair| [&pair.prompt[..], response(pair)].concat())
        };
        let sequences: Vec<Vec<u32>> =
            whole(|pair| &pair.chosen).chain(whole(|pair| &pair.rejected)).collect();
        let batch = align_model::causal_lm::TokenBatch::from_sequences(&sequences);
        let ends: Vec<usize> =
            batch.starts().iter().zip(batch.lengths()).map(|(start, length)| start + length - 1).collect();
        let pass = ScorePass::forward(model, &batch, &ends, align_model::causal_lm::PassOptions::default());
        let scores = pass.scores().squeeze_dim::<1>(1);
        let half = |start: usize| scores.clone().narrow(0, start, pairs.len());
        let (chosen, rejected) = (half(0), half(pairs.len()));
        let margins: Option<Vec<f32>> = pairs.iter().map(|pair| pair.margin).collect();
        let margins = margins.map(|margins| Tensor::from_data(margins.as_slice(), &super::device()));
        let none = UnitInterval::new(0.0);
        let loss = bradley_terry_loss(chosen.clone(), rejected.clone(), margins, none).mean();
        let loss = match coefficient {
            Some(coefficient) => loss + centering_loss(chosen, rejected).mean() * coefficient.get(),
            None => loss,
        };
        let gradients = pass.backward(loss / window.len() as f64);
        let mut found = HashMap::new();
        model.visit(&mut Values { path: Vec::new(), gradients: Some(&gradients), found: &mut found });
        for (name, values) in found {
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    let ours: HashMap<String, Vec<f64>> =
        sums.into_iter().map(|(path, values)| (on_disk(family, &path), values)).collect();
    for name in stored.names() {
        let expected: Vec<f64> = stored.read(&name).unwrap().values.into_iter().map(f64::from).collect();
        let plain = name
            .replace(".default", "")
            .replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
            .replace(".modules_to_save", "")
            .replace("base_model.model.score.", "score.");
        match ours.get(&plain) {
            Some(actual) => check.close(&format!("gradient {name}"), actual, &expected, GRADIENT),
            None => check.fail(format!("gradient {name}: we have none")),
        }
    }
}

/// A checkpoint's name of a reward model's parameter.
fn on_disk(family: Family, path: &str) -> String {
    match path.strip_prefix("backbone.") {
        Some(path) => tensor_name(family, path),
        None => path.replace("head.", "score."),
    }
}
