//! Rope scaling from GGUF metadata.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::pretrained::LoadError;

/// Llama 3's scaling leaves wavelengths below a quarter of the original context alone and divides those above it in full.
const LOW_FREQUENCY_FACTOR: f64 = 1.0;
const HIGH_FREQUENCY_FACTOR: f64 = 4.0;
const LLAMA3_CONTEXT: u64 = 8192;
/// How far the stored divisors, which are f32, may be from the recomputed ones.
const DIVISOR_TOLERANCE: f64 = 1e-3;

/// A model's rotary embedding before scaling.
pub(super) struct Rotary<'a> {
    /// Rotated dimensions of a head.
    pub(super) head_size: u64,
    /// The base of the wavelengths.
    pub(super) theta: f64,
    /// The table by which the file says each frequency is divided.
    pub(super) divisors: Option<&'a [f32]>,
}

/// The `rope_scaling` of `config.json`, null where there is none.
pub(super) fn scaling(metadata: &Metadata, prefix: &str, rotary: &Rotary<'_>) -> Result<Value, LoadError> {
    if let Some(divisors) = rotary.divisors {
        return llama3_scaling(metadata, prefix, rotary, divisors);
    }
    let type_key = format!("{prefix}.rope.scaling.type");
    let factor_key = format!("{prefix}.rope.scaling.factor");
    let factor = match metadata.number(&factor_key)? {
        Some(factor) => Some(factor),
        None => metadata.number(&format!("{prefix}.rope.scale_linear"))?,
    };
    let required = || match factor {
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => Err(metadata.invalid(&factor_key, format!("is {factor}, not positive"))),
        None => Err(metadata.invalid(&factor_key, "the key is missing")),
    };
    match metadata.string(&type_key)? {
        None if factor.is_none_or(is_one) => Ok(Value::Null),
        Some("none") => Ok(Value::Null),
        None | Some("linear") => Ok(json!({ "rope_type": "linear", "factor": required()? })),
        Some("yarn") => yarn_scaling(metadata, prefix, required()?),
        Some(other) => Err(metadata.invalid(
            &type_key,
            format!(
                "rope scaling `{other}` is not supported (supported: none, linear, yarn, and llama3's table)"
            ),
        )),
    }
}

fn yarn_scaling(metadata: &Metadata, prefix: &str, factor: f64) -> Result<Value, LoadError> {
    let mut scaling = Map::new();
    scaling.insert("rope_type".to_owned(), json!("yarn"));
    scaling.insert("factor".to_owned(), json!(factor));
    if let Some(context) = metadata.integer(&format!("{prefix}.rope.scaling.original_context_length"))? {
        scaling.insert("original_max_position_embeddings".to_owned(), json!(context));
    }
    for name in ["beta_fast", "beta_slow"] {
        if let Some(beta) = metadata.number(&format!("{prefix}.rope.scaling.yarn_{name}"))? {
            scaling.insert(name.to_owned(), json!(beta));
        }
    }
    // GGUF's factor multiplies YaRN's own attention factor, config.json's replaces it.
    if let Some(attention) = metadata.number(&format!("{prefix}.rope.scaling.attn_factor"))?
        && !is_one(attention)
    {
        scaling.insert("attention_factor".to_owned(), json!(attention * (0.1 * factor.ln() + 1.0)));
    }
    Ok(Value::Object(scaling))
}

/// Finds the parameters whose divisors are the ones stored: files keep the table, not what it was made from.
fn llama3_scaling(
    metadata: &Metadata,
    prefix: &str,
    rotary: &Rotary<'_>,
    divisors: &[f32],
) -> Result<Value, LoadError> {
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    if divisors.iter().all(|&divisor| is_one(f64::from(divisor))) {
        return Ok(Value::Null);
    }
    let stated = metadata.integer(&format!("{prefix}.rope.scaling.original_context_length"))?;
    let contexts = stated.into_iter().chain([LLAMA3_CONTEXT]).chain((0..=20).map(|power| 1_u64 << power));
    let fits = |&context: &u64| {
        divisors.len() as u64 == rotary.head_size / 2
            && divisors.iter().enumerate().all(|(index, &stored)| {
                let divisor = llama3_divisor(rotary, factor, context, index);
                (divisor / f64::from(stored) - 1.0).abs() < DIVISOR_TOLERANCE
            })
    };
    let context = contexts.into_iter().find(fits).ok_or_else(|| {
        metadata
            .invalid("rope_freqs.weight", "the table of frequency divisors is not one of Llama 3's scaling")
    })?;
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW_FREQUENCY_FACTOR,
        "high_freq_factor": HIGH_FREQUENCY_FACTOR,
        "original_max_position_embeddings": context,
    }))
}

fn is_one(number: f64) -> bool {
    (number - 1.0).abs() < f64::EPSILON
}

fn llama3_divisor(rotary: &Rotary<'_>, factor: f64, context: u64, index: usize) -> f64 {
    let exponent = 2.0 * index as f64 / rotary.head_size as f64;
    let wavelength = std::f64::consts::TAU * rotary.theta.powf(exponent);
    let smooth =
        (context as f64 / wavelength - LOW_FREQUENCY_FACTOR) / (HIGH_FREQUENCY_FACTOR - LOW_FREQUENCY_FACTOR);
    1.0 / (smooth.clamp(0.0, 1.0) * (1.0 - 1.0 / factor) + 1.0 / factor)
}

#[cfg(test)]
mod tests;
