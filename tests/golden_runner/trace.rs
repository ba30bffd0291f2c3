//! `kind: "trace"`: TRL's trainers, step by step.

mod groups;
mod pairs;
mod sft;
mod unpaired;

use std::collections::HashMap;

use align_model::{
    adapter::SavedAdapter,
    decoder::Decoder,
    number::{NonNegative, Positive, ProperFraction},
    pretrained::{Checkpoint, Family, SafetensorsWeights, WeightSource, tensor_name},
    train::{AdamWConfig, Report, UpdateConfig},
};
use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
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
    if !file.json["config"]["neftune_noise_alpha"].is_null() {
        return Err("noise on embeddings (NEFTune) is not offered".into());
    }
    match trainer {
        "sft" => sft::run(file, check),
        "dpo" | "orpo" | "cpo" | "simpo" | "tpo" => pairs::run(trainer, file, check),
        "kto" => unpaired::run(file, check),
        "grpo" | "rloo" => groups::run(trainer, file, check),
        _ => return Err(format!("no trainer for traces of `{trainer}`")),
    }
    Ok(())
}

/// What a trace begins with.
struct Start {
    model: Decoder,
    family: Family,
    has_adapter: bool,
}

impl Start {
    fn of(file: &GoldenFile) -> Self {
        let checkpoint = Checkpoint::open(&file.directory.join(text(&file.json, "model"))).unwrap();
        let family = checkpoint.architecture().family();
        let model = checkpoint.load(&super::device().autodiff()).unwrap();
        let adapter = file.directory.join(format!("{}_initial_adapter", file.name));
        let has_adapter = adapter.exists();
        let model = if has_adapter {
            SavedAdapter::open(&adapter).unwrap().apply(model, family).unwrap()
        } else {
            model
        };
        Self { model, family, has_adapter }
    }

    /// The model that the policy is measured against.
    fn reference(&self) -> Decoder {
        if self.has_adapter { self.model.without_adapter() } else { self.model.valid() }
    }
}

/// Learning rate, schedule, optimiser and clipping, from TRL's arguments.
fn update(json: &Value) -> UpdateConfig {
    let positive = |key: &str| Positive::try_from(number(&json[key])).unwrap();
    let fraction = |key: &str| ProperFraction::try_from(number(&json[key])).unwrap();
    let warmup_steps = Some(number(&json["warmup_steps"]) as u64);
    let options = &json["lr_scheduler_kwargs"];
    let schedule = super::schedules::schedule(text(json, "lr_scheduler_type"), warmup_steps, options);
    UpdateConfig {
        learning_rate: positive("learning_rate"),
        schedule: schedule.unwrap(),
        optimizer: AdamWConfig {
            beta1: fraction("adam_beta1"),
            beta2: fraction("adam_beta2"),
            epsilon: positive("adam_epsilon"),
            weight_decay: NonNegative::try_from(number(&json["weight_decay"])).unwrap(),
            ..AdamWConfig::default()
        },
        max_grad_norm: positive("max_grad_norm"),
    }
}

/// A row's tokens without padding, up to where `is_completion` begins, and from there on.
fn prompt_and_completion(
    tokens: &[i64],
    attention: &[i64],
    is_completion: impl Fn(usize) -> bool,
) -> (Vec<u32>, Vec<u32>) {
    let real = (0..tokens.len()).filter(|&column| attention[column] != 0);
    let (completion, prompt): (Vec<usize>, Vec<usize>) = real.partition(|&column| is_completion(column));
    assert!(prompt.last() < completion.first(), "a completion follows its prompt");
    let pick = |columns: Vec<usize>| columns.into_iter().map(|column| tokens[column] as u32).collect();
    (pick(prompt), pick(completion))
}

/// Compares what a step measured with what TRL logged, under the same names.
fn compare_step(
    check: &mut Check,
    step: &Value,
    report: &impl Report,
    tolerance: impl Fn(&str) -> Option<Tolerance>,
) {
    compare_step_within(check, step, report, LOSS, tolerance);
}

/// As [`compare_step`], with a tolerance for the loss.
fn compare_step_within(
    check: &mut Check,
    step: &Value,
    report: &impl Report,
    of_loss: Tolerance,
    tolerance: impl Fn(&str) -> Option<Tolerance>,
) {
    let at = format!("step {}", step["step"]);
    for (name, value) in report.metrics() {
        let (expected, tolerance) = match name {
            "loss" => (&step["loss"], of_loss),
            "grad_norm" => (&step["grad_norm"], NORM),
            _ => match (step["logged"].get(name), tolerance(name)) {
                (Some(expected), Some(tolerance)) => (expected, tolerance),
                _ => continue,
            },
        };
        check.close_scalar(&format!("{at} {name}"), value, number(expected), tolerance);
    }
}

/// Names of a model's tensors on disk, by their paths in ours.
fn names(family: Family) -> impl Fn(&str) -> String {
    move |path| tensor_name(family, path)
}

/// The gradients of step 1, before clipping.
fn stored_gradients(file: &GoldenFile) -> SafetensorsWeights {
    let path = file.directory.join(format!("{}_step1_grads.safetensors", file.name));
    SafetensorsWeights::open_file(&path).unwrap()
}

/// The weights after the last step, where they are stored.
fn compare_last(file: &GoldenFile, check: &mut Check, model: &Decoder, family: Family) {
    let last = file.directory.join(format!("{}_final.safetensors", file.name));
    if last.exists() {
        compare_weights(check, model, &SafetensorsWeights::open_file(&last).unwrap(), &names(family));
    }
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
        // A whole model inside PEFT also has the layers that adapters were put on.
        let on_base = on_disk.replace("base_model.model.", "").replace(".base_layer", "");
        match ours.get(&on_disk).or_else(|| ours.get(&on_base)) {
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
