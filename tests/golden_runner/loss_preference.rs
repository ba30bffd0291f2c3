//! `loss_dpo`, `loss_kto`, `loss_cpo_orpo`, `loss_bco`: losses of pairs and of single completions on given
//! log-probabilities.

mod completions;
mod pairs;
mod reference_free;
mod unpaired;

pub use {
    pairs::objective,
    reference_free::{cpo, tpo},
    unpaired::kto,
};

use align_dpo::loss::{FlipRate, InnerFraction};
use align_model::number::{NonNegative, Positive, ProperFraction, UnitInterval};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, number},
};

const LOSS: Tolerance = Tolerance::Mixed { relative: 1e-5, absolute: 1e-6 };
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    match file.name.as_str() {
        name if name.starts_with("loss_dpo") => pairs::run(file, check),
        name if name.starts_with("loss_kto") => unpaired::run_kto(file, check),
        name if name.starts_with("loss_bco") => unpaired::run_bco(file, check),
        name if name.starts_with("loss_cpo_orpo") => reference_free::run(file, check),
        _ => return Err("no losses of this family".into()),
    }
    Ok(())
}

/// A number of `options`, or what TRL takes where it is missing or null.
fn option(options: &Value, key: &str, default: f64) -> f64 {
    options.get(key).filter(|value| !value.is_null()).map_or(default, number)
}

fn positive(options: &Value, key: &str, default: f64) -> Positive {
    Positive::try_from(option(options, key, default)).unwrap()
}

fn weight(options: &Value, key: &str, default: f64) -> NonNegative {
    NonNegative::try_from(option(options, key, default)).unwrap()
}

fn smoothing(options: &Value) -> ProperFraction {
    ProperFraction::try_from(option(options, "label_smoothing", 0.0)).unwrap()
}

fn flip_rate(options: &Value) -> FlipRate {
    FlipRate::try_from(option(options, "label_smoothing", 0.0)).unwrap()
}

fn inner_smoothing(options: &Value) -> InnerFraction {
    InnerFraction::try_from(option(options, "label_smoothing", 0.0)).unwrap()
}

fn share(options: &Value, key: &str) -> Option<UnitInterval> {
    let value = options.get(key).filter(|value| !value.is_null())?;
    Some(UnitInterval::try_from(number(value)).unwrap())
}

/// What was computed in f64 where it could be, else in f32.
fn best<'a>(result: &'a Value, key: &str) -> &'a Value {
    let of = |precision: &str| result.get(format!("{key}_{precision}")).filter(|value| !value.is_null());
    of("f64").or_else(|| of("f32")).or_else(|| result.get(key)).unwrap_or_else(|| panic!("no {key}"))
}

fn vector(values: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// A vector whose gradient is asked for.
fn leaf(values: &[f64], device: &Device) -> Tensor<1> {
    vector(values, device).require_grad()
}

fn read(x: Tensor<1>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn read_one(x: Tensor<1>) -> f64 {
    x.into_data().iter::<f64>().sum()
}

/// The gradients of a sum with respect to leaves.
fn gradients<const N: usize>(loss: Tensor<1>, leaves: [&Tensor<1>; N]) -> [Vec<f64>; N] {
    let gradients = loss.backward();
    leaves.map(|leaf| read(leaf.grad(&gradients).unwrap_or_else(|| leaf.zeros_like())))
}

/// Numbers that TRL logs, where the file has them.
fn metrics(what: &str, result: &Value, ours: &[(&str, f64)], check: &mut Check) {
    for &(name, value) in ours {
        if let Some(expected) = result["metrics"].get(name).filter(|value| !value.is_null()) {
            check.close_scalar(&format!("{what} {name}"), value, number(expected), LOSS);
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
