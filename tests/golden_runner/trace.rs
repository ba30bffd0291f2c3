//! `kind: "trace"`: TRL's trainers, step by step.

use std::collections::HashMap;

use align_model::{
    adapter::SavedAdapter,
    causal_lm::TokenBatch,
    decoder::Decoder,
    logprob::{LogProbPass, Targets},
    number::{NonNegative, Positive, ProperFraction, UnitInterval},
    pretrained::{Checkpoint, Family, SafetensorsWeights, WeightSource, tensor_name},
    sft::{SftConfig, SftExample, SftLoss, SftTrainer},
    train::{AdamWConfig, Step, UpdateConfig, gradient_norm},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{number, rows, text},
};

const LOSS: Tolerance = Tolerance::Relative(1e-4);
const NORM: Tolerance = Tolerance::Relative(1e-3);
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);
const WEIGHTS: Tolerance = Tolerance::Absolute(1e-4);
/// Averages over a step's tokens; TRL computes them batch by batch in f32.
const METRIC: Tolerance = Tolerance::Mixed { relative: 1e-4, absolute: 1e-5 };

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    let trainer =
        file.name.strip_prefix("trace_").and_then(|name| name.split('_').nth(1)).unwrap_or_default();
    if trainer != "sft" {
        return Err(format!("no trainer for traces of `{trainer}`"));
    }
    if !file.json["config"]["neftune_noise_alpha"].is_null() {
        return Err("noise on embeddings (NEFTune) is not offered".into());
    }
    sft(file, check);
    Ok(())
}

fn sft(file: &GoldenFile, check: &mut Check) {
    let checkpoint = Checkpoint::open(&file.directory.join(text(&file.json, "model"))).unwrap();
    let device = super::device().autodiff();
    let family = checkpoint.architecture().family();
    let model = with_adapter(file, checkpoint.load(&device).unwrap(), family);
    let config = config(&file.json["config"]);
    let steps = file.json["steps"].as_array().unwrap();
    let windows: Vec<Vec<Vec<SftExample>>> =
        steps.iter().map(|step| examples(&step["micro_batches"])).collect();

    let names = |path: &str| tensor_name(family, path);
    let stored =
        SafetensorsWeights::open_file(&file.directory.join(format!("{}_step1_grads.safetensors", file.name)));
    let stored = stored.unwrap();
    compare_gradients(check, &model, first_gradients(&model, &windows[0], config.loss), &stored, &names);

    let total = number(&file.json["config"]["max_steps"]) as u64;
    let mut trainer = SftTrainer::new(model, &config, total).unwrap();
    for (step, window) in steps.iter().zip(&windows) {
        check.case();
        let at = format!("step {}", step["step"]);
        let report = trainer.step(window.concat().as_slice()).unwrap();
        check.close_scalar(&format!("{at} loss"), report.loss, number(&step["loss"]), LOSS);
        check.close_scalar(&format!("{at} grad_norm"), report.grad_norm, number(&step["grad_norm"]), NORM);
        let logged = &step["logged"];
        check.close_scalar(
            &format!("{at} learning_rate"),
            report.learning_rate,
            number(&logged["learning_rate"]),
            LOSS,
        );
        check.close_scalar(
            &format!("{at} num_tokens"),
            report.num_tokens as f64,
            number(&logged["num_tokens"]),
            LOSS,
        );
        // TRL averages these over forward passes, whatever their sizes.
        if window.len() == 1 {
            check.close_scalar(&format!("{at} entropy"), report.entropy, number(&logged["entropy"]), METRIC);
            let accuracy = number(&logged["mean_token_accuracy"]);
            check.close_scalar(&format!("{at} accuracy"), report.mean_token_accuracy, accuracy, METRIC);
        }
    }
    let last = file.directory.join(format!("{}_final.safetensors", file.name));
    if last.exists() {
        compare_weights(check, trainer.model(), &SafetensorsWeights::open_file(&last).unwrap(), &names);
    }
}

/// The model with the adapter that the trace begins with, if it has one.
fn with_adapter(file: &GoldenFile, model: Decoder, family: Family) -> Decoder {
    let directory = file.directory.join(format!("{}_initial_adapter", file.name));
    if directory.exists() {
        SavedAdapter::open(&directory).unwrap().apply(model, family).unwrap()
    } else {
        model
    }
}

fn config(json: &Value) -> SftConfig {
    let positive = |key: &str| Positive::try_from(number(&json[key])).unwrap();
    let fraction = |key: &str| ProperFraction::try_from(number(&json[key])).unwrap();
    let warmup_steps = Some(number(&json["warmup_steps"]) as u64);
    let options = &json["lr_scheduler_kwargs"];
    let schedule =
        super::schedules::schedule(text(json, "lr_scheduler_type"), warmup_steps, options).unwrap();
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

fn compare_gradients(
    check: &mut Check,
    model: &Decoder,
    gradients: GradientsParams,
    stored: &SafetensorsWeights,
    names: &dyn Fn(&str) -> String,
) {
    check.case();
    let mut found = HashMap::new();
    model.visit(&mut Values { path: Vec::new(), gradients: Some(&gradients), found: &mut found });
    compare_all(check, "gradient", &found, stored, names, GRADIENT);
}

fn compare_weights(
    check: &mut Check,
    model: &Decoder,
    stored: &SafetensorsWeights,
    names: &dyn Fn(&str) -> String,
) {
    check.case();
    let mut found = HashMap::new();
    model.visit(&mut Values { path: Vec::new(), gradients: None, found: &mut found });
    compare_all(check, "final", &found, stored, names, WEIGHTS);
}

fn compare_all(
    check: &mut Check,
    what: &str,
    found: &HashMap<String, Vec<f64>>,
    stored: &SafetensorsWeights,
    names: &dyn Fn(&str) -> String,
    tolerance: Tolerance,
) {
    let ours: HashMap<String, &Vec<f64>> = found.iter().map(|(path, values)| (names(path), values)).collect();
    for name in stored.names() {
        let expected: Vec<f64> = stored.read(&name).unwrap().values.into_iter().map(f64::from).collect();
        // Inside PEFT, the tensors of adapters carry the adapter's name, and magnitudes are modules.
        let on_disk =
            name.replace(".default", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector");
        match ours.get(&on_disk) {
            Some(actual) => check.close(&format!("{what} {name}"), actual, &expected, tolerance),
            None => check.fail(format!("{what} {name}: we have none")),
        }
    }
}

/// Collects parameters, or their gradients, by path.
pub(super) struct Values<'a> {
    pub(super) path: Vec<String>,
    pub(super) gradients: Option<&'a GradientsParams>,
    pub(super) found: &'a mut HashMap<String, Vec<f64>>,
}

impl ModuleVisitor for Values<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val()),
        };
        if let Some(values) = values {
            self.found.insert(self.path.join("."), values.into_data().iter::<f64>().collect());
        }
    }
}
