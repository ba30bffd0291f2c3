//! Rotary settings in both spellings: transformers 5 (`rope_parameters`) and 4 (`rope_theta`, `rope_scaling`).

use super::{LoadError, config_keys::ConfigKeys};
use crate::decoder::{RopeConfig, RopeScaling};

/// Reads the rotary variant of a family that has one.
pub(super) fn rope(
    keys: &ConfigKeys<'_>,
    head_dim: usize,
    default_theta: f64,
) -> Result<RopeConfig, LoadError> {
    if let Some(parameters) = keys.object("rope_parameters")? {
        let theta = match parameters.optional_number("rope_theta")? {
            Some(theta) => theta,
            None => keys.number_or("rope_theta", default_theta)?,
        };
        return variant(keys, Some(parameters), theta, head_dim);
    }
    variant(keys, keys.object("rope_scaling")?, keys.number_or("rope_theta", default_theta)?, head_dim)
}

/// Reads gemma3's two variants: global (index 0) and local (index 1).
pub(super) fn global_and_local(keys: &ConfigKeys<'_>, head_dim: usize) -> Result<Vec<RopeConfig>, LoadError> {
    let by_type = match keys.object("rope_parameters")? {
        Some(parameters) => (parameters.object("full_attention")?, parameters.object("sliding_attention")?),
        None => (None, None),
    };
    let global_theta = keys.number_or("rope_theta", 1e6)?;
    let local_theta = keys.number_or("rope_local_base_freq", 1e4)?;
    let (global, local) = match by_type {
        (Some(global), Some(local)) => (
            variant(keys, Some(global), global.number_or("rope_theta", global_theta)?, head_dim)?,
            variant(keys, Some(local), local.number_or("rope_theta", local_theta)?, head_dim)?,
        ),
        _ => (
            variant(keys, keys.object("rope_scaling")?, global_theta, head_dim)?,
            RopeConfig { theta: local_theta, rotated: head_dim, scaling: RopeScaling::None },
        ),
    };
    Ok(vec![global, local])
}

/// One variant; `scaling` is the object that holds `rope_type` and what belongs to it.
fn variant(
    keys: &ConfigKeys<'_>,
    scaling: Option<ConfigKeys<'_>>,
    theta: f64,
    head_dim: usize,
) -> Result<RopeConfig, LoadError> {
    let share = match scaling.map(|s| s.optional_number("partial_rotary_factor")).transpose()?.flatten() {
        Some(share) => share,
        None => keys.number_or("partial_rotary_factor", keys.number_or("rotary_pct", 1.0)?)?,
    };
    let rotated = (head_dim as f64 * share) as usize;
    if rotated % 2 == 1 || rotated == 0 || rotated > head_dim {
        return Err(keys.wrong("partial_rotary_factor", &format!("rotates {rotated} of {head_dim} channels")));
    }
    let scaling = match scaling {
        None => RopeScaling::None,
        Some(scaling) => read_scaling(keys, scaling)?,
    };
    Ok(RopeConfig { theta, rotated, scaling })
}

fn read_scaling(keys: &ConfigKeys<'_>, scaling: ConfigKeys<'_>) -> Result<RopeScaling, LoadError> {
    // Before `rope_type` the key was `type`.
    let kind = scaling.optional_text("rope_type")?.or(scaling.optional_text("type")?).unwrap_or("default");
    match kind {
        "default" | "mrope" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: scaling.number("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: scaling.number("factor")?,
            low_frequency_factor: scaling.number("low_freq_factor")?,
            high_frequency_factor: scaling.number("high_freq_factor")?,
            original_max_positions: original_max_positions(keys, scaling)?,
        }),
        "yarn" => yarn(keys, scaling),
        other => Err(scaling
            .wrong("rope_type", &format!("`{other}` is not supported (default, linear, llama3, yarn)"))),
    }
}

fn original_max_positions(keys: &ConfigKeys<'_>, scaling: ConfigKeys<'_>) -> Result<f64, LoadError> {
    let key = "original_max_position_embeddings";
    match scaling.optional_number(key)?.or(keys.optional_number(key)?) {
        Some(length) => Ok(length),
        None => keys.number("max_position_embeddings"),
    }
}

fn yarn(keys: &ConfigKeys<'_>, scaling: ConfigKeys<'_>) -> Result<RopeScaling, LoadError> {
    let original = original_max_positions(keys, scaling)?;
    let factor = match scaling.optional_number("factor")? {
        Some(factor) => factor,
        None => keys.number("max_position_embeddings")? / original,
    };
    let mscale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let attention_factor = match scaling.optional_number("attention_factor")? {
        Some(given) => given,
        None => match (scaling.optional_number("mscale")?, scaling.optional_number("mscale_all_dim")?) {
            (Some(mscale_one), Some(mscale_all)) => mscale(mscale_one) / mscale(mscale_all),
            _ => mscale(1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: scaling.number_or("beta_fast", 32.0)?,
        beta_slow: scaling.number_or("beta_slow", 1.0)?,
        original_max_positions: original,
        attention_factor,
        truncate: scaling.flag_or("truncate", true)?,
    })
}
