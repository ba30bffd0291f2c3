//! Rotary settings in both spellings: transformers 5 (`rope_parameters`) and 4 (`rope_theta`, `rope_scaling`).

use super::{LoadError, config_keys::ConfigKeys};
use crate::decoder::{RopeConfig, RopeScaling};

/// Reads the variant of a family that rotates whole heads. transformers' default variant then ignores a factor for
/// rotating a part of them, and its others do not run with one.
pub(super) fn whole(keys: &ConfigKeys<'_>, head_dim: usize) -> Result<RopeConfig, LoadError> {
    let object = scaling_object(keys)?;
    let theta = theta(keys, object, &["rope_theta"])?;
    variant(keys, object, theta, head_dim)
}

/// Reads the variant of `gpt_neox`, which rotates a part of each head: a quarter unless told otherwise.
pub(super) fn partial(keys: &ConfigKeys<'_>, head_dim: usize) -> Result<RopeConfig, LoadError> {
    let object = scaling_object(keys)?;
    let theta = theta(keys, object, &["rotary_emb_base", "rope_theta"])?;
    let given = object.map(|o| o.optional_number("partial_rotary_factor")).transpose()?.flatten();
    let (key, share) = match (given, keys.optional_number("rotary_pct")?) {
        (Some(share), _) => ("partial_rotary_factor", share),
        (None, Some(share)) => ("rotary_pct", share),
        (None, None) => ("partial_rotary_factor", keys.number_or("partial_rotary_factor", 0.25)?),
    };
    let rotated = (head_dim as f64 * share) as usize;
    if !rotated.is_multiple_of(2) || rotated == 0 || rotated > head_dim {
        let reason = format!(
            "{share} rotates {rotated} of a head's {head_dim} channels: expected an even number from 2 to {head_dim}"
        );
        return Err(keys.wrong(key, &reason));
    }
    let scaling = object.map_or(Ok(RopeScaling::None), |object| read_scaling(keys, object))?;
    Ok(RopeConfig { theta, rotated, scaling })
}

/// Reads gemma3's two variants: global (index 0) and local (index 1).
pub(super) fn global_and_local(keys: &ConfigKeys<'_>, head_dim: usize) -> Result<Vec<RopeConfig>, LoadError> {
    let parameters = keys.object("rope_parameters")?;
    let of = |kind: &str| parameters.map(|p| p.object(kind)).transpose().map(Option::flatten);
    let (global, local) = (of("full_attention")?, of("sliding_attention")?);
    let theta = |object: Option<ConfigKeys<'_>>, key: &str, default: f64| match object {
        Some(object) => object.number_or("rope_theta", keys.number_or(key, default)?),
        None => keys.number_or(key, default),
    };
    let (global_theta, local_theta) =
        (theta(global, "rope_theta", 1e6)?, theta(local, "rope_local_base_freq", 1e4)?);
    let scaling = keys.object("rope_scaling")?.or(global);
    Ok(vec![variant(keys, scaling, global_theta, head_dim)?, variant(keys, local, local_theta, head_dim)?])
}

/// The object that holds `rope_type` and what belongs to it. As in transformers, an old spelling that is not empty wins.
fn scaling_object<'a>(keys: &ConfigKeys<'a>) -> Result<Option<ConfigKeys<'a>>, LoadError> {
    let old = keys.object("rope_scaling")?.filter(|object| !object.is_empty());
    Ok(old.or(keys.object("rope_parameters")?))
}

/// `rope_theta` of the object that was chosen, then the first of `old` that is set, then `rope_parameters`.
fn theta(keys: &ConfigKeys<'_>, object: Option<ConfigKeys<'_>>, old: &[&str]) -> Result<f64, LoadError> {
    let of = |object: Option<ConfigKeys<'_>>| {
        object.map(|o| o.optional_number("rope_theta")).transpose().map(Option::flatten)
    };
    if let Some(theta) = of(object)? {
        return Ok(theta);
    }
    for key in old {
        if let Some(theta) = keys.optional_number(key)? {
            return Ok(theta);
        }
    }
    Ok(of(keys.object("rope_parameters")?)?.unwrap_or(1e4))
}

/// A variant that rotates whole heads.
fn variant(
    keys: &ConfigKeys<'_>,
    scaling: Option<ConfigKeys<'_>>,
    theta: f64,
    head_dim: usize,
) -> Result<RopeConfig, LoadError> {
    if !head_dim.is_multiple_of(2) {
        let reason = format!("heads of {head_dim} channels cannot be rotated: expected an even number");
        return Err(keys.wrong("head_dim", &reason));
    }
    let Some(object) = scaling else {
        return Ok(RopeConfig { theta, rotated: head_dim, scaling: RopeScaling::None });
    };
    let scaling = read_scaling(keys, object)?;
    let key = "partial_rotary_factor";
    let share = object.number_or(key, keys.number_or(key, 1.0)?)?;
    if scaling != RopeScaling::None && (share - 1.0).abs() > 0.0 {
        return Err(keys.wrong(key, &format!("{share}: this family rotates whole heads")));
    }
    Ok(RopeConfig { theta, rotated: head_dim, scaling })
}

fn read_scaling(keys: &ConfigKeys<'_>, scaling: ConfigKeys<'_>) -> Result<RopeScaling, LoadError> {
    // Before `rope_type` the key was `type`.
    let kind = scaling.optional_text("rope_type")?.or(scaling.optional_text("type")?).unwrap_or("default");
    match kind {
        "default" | "mrope" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: scaling.number("factor")? }),
        "llama3" => llama3(keys, scaling),
        "yarn" => yarn(keys, scaling),
        other => Err(scaling
            .wrong("rope_type", &format!("`{other}` is not supported (default, linear, llama3, yarn)"))),
    }
}

fn llama3(keys: &ConfigKeys<'_>, scaling: ConfigKeys<'_>) -> Result<RopeScaling, LoadError> {
    let (low, high) = (scaling.number("low_freq_factor")?, scaling.number("high_freq_factor")?);
    if high <= low {
        return Err(scaling.wrong("high_freq_factor", &format!("{high} is not above low_freq_factor {low}")));
    }
    Ok(RopeScaling::Llama3 {
        factor: scaling.number("factor")?,
        low_frequency_factor: low,
        high_frequency_factor: high,
        original_max_positions: original_max_positions(keys, scaling)?,
    })
}

fn original_max_positions(keys: &ConfigKeys<'_>, scaling: ConfigKeys<'_>) -> Result<f64, LoadError> {
    let key = "original_max_position_embeddings";
    match keys.optional_number(key)?.or(scaling.optional_number(key)?) {
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
