//! From a Hugging Face `config.json` to a [`DecoderConfig`].

use std::path::Path;

use serde_json::Value;

use super::{LoadError, config_keys::ConfigKeys, family::Family, rope_json};
use crate::decoder::{
    Activation, AttentionBias, DecoderConfig, Head, LayerConfig, MlpKind, NormConfig, NormPlacement,
    Positions, Residual,
};

/// More blocks than any model has; a larger count is a damaged file, and each entry takes memory before a weight is read.
const MOST_LAYERS: usize = 10_000;

/// Reads a configuration. `path` is only for messages.
///
/// # Errors
/// If the architecture is not supported, or a key is missing, of the wrong type, or set to something that the decoder
/// does not do.
pub(super) fn decoder_config(path: &Path, json: &Value) -> Result<(Family, DecoderConfig), LoadError> {
    let keys = ConfigKeys::new(path, json)?;
    let family = Family::from_model_type(path, keys.text("model_type")?)?;
    let config = match family {
        Family::Gpt2 => gpt2(&keys)?,
        Family::GptNeoX => gpt_neox(&keys)?,
        _ => llama_like(&keys, family)?,
    };
    check_sizes(&keys, &config)?;
    Ok((family, config))
}

fn check_sizes(keys: &ConfigKeys<'_>, config: &DecoderConfig) -> Result<(), LoadError> {
    if !config.heads.is_multiple_of(config.kv_heads) {
        let reason = format!("{} does not divide {} heads", config.kv_heads, config.heads);
        return Err(keys.wrong("num_key_value_heads", &reason));
    }
    Ok(())
}

/// llama, mistral, qwen2, qwen3, gemma3: rotary positions, RMS norm, gated feed-forward.
fn llama_like(keys: &ConfigKeys<'_>, family: Family) -> Result<DecoderConfig, LoadError> {
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(value) = keys.get(key) {
            return Err(keys.wrong(key, &format!("{value}: soft-capped logits are not supported")));
        }
    }
    if keys.flag_or("use_bidirectional_attention", false)? {
        return Err(keys.wrong("use_bidirectional_attention", "only causal attention is supported"));
    }
    let gemma = family == Family::Gemma3;
    let (hidden, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
    let head_dim = match keys.optional_count("head_dim")? {
        Some(given) => given,
        None if gemma => 256,
        None if family == Family::Qwen3 => 128,
        None => divided(keys, "hidden_size", hidden, heads)?,
    };
    let epsilon = keys.number_or("rms_norm_eps", 1e-6)?;
    let scale = if gemma { keys.number_or("query_pre_attn_scalar", 256.0)? } else { head_dim as f64 };
    let attention_bias = match family {
        Family::Qwen2 => AttentionBias::QueryKeyValue,
        Family::Mistral => AttentionBias::None,
        _ if keys.flag_or("attention_bias", false)? => AttentionBias::All,
        _ => AttentionBias::None,
    };
    let ropes = if gemma {
        rope_json::global_and_local(keys, head_dim)?
    } else {
        vec![rope_json::whole(keys, head_dim)?]
    };
    Ok(DecoderConfig {
        vocab_size: keys.count("vocab_size")?,
        hidden_size: hidden,
        intermediate_size: keys.count("intermediate_size")?,
        layers: layers(keys, family, scale.sqrt().recip())?,
        heads,
        kv_heads: keys.count_or("num_key_value_heads", heads)?,
        head_dim,
        max_positions: keys.count("max_position_embeddings")?,
        norm: if gemma { NormConfig::RmsPlusOne { epsilon } } else { NormConfig::Rms { epsilon } },
        norm_placement: if gemma { NormPlacement::Sandwich } else { NormPlacement::Pre },
        residual: Residual::Sequential,
        activation: activation(
            keys,
            &["hidden_activation", "hidden_act"],
            if gemma { "gelu_pytorch_tanh" } else { "silu" },
        )?,
        mlp: MlpKind::Gated,
        attention_bias,
        mlp_bias: family == Family::Llama && keys.flag_or("mlp_bias", false)?,
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        positions: Positions::Rotary(ropes),
        embedding_scale: if gemma { (hidden as f64).sqrt() } else { 1.0 },
        head: head(keys, gemma)?,
    })
}

/// Which layers look how far back.
fn layers(
    keys: &ConfigKeys<'_>,
    family: Family,
    attention_scale: f64,
) -> Result<Vec<LayerConfig>, LoadError> {
    let count = layer_count(keys, "num_hidden_layers", keys.count("num_hidden_layers")?)?;
    let window = match family {
        Family::Llama | Family::GptNeoX | Family::Gpt2 => None,
        Family::Qwen2 | Family::Qwen3 if !keys.flag_or("use_sliding_window", false)? => None,
        Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => {
            // A configuration that leaves the key out means transformers' default; null means no window.
            if keys.has("sliding_window") { keys.optional_count("sliding_window")? } else { Some(4096) }
        }
    };
    let slides = sliding_layers(keys, family, count)?;
    Ok(slides
        .into_iter()
        .map(|sliding| LayerConfig {
            attention_scale,
            window: window.filter(|_| sliding),
            rope: usize::from(sliding && family == Family::Gemma3),
        })
        .collect())
}

fn layer_count(keys: &ConfigKeys<'_>, key: &str, count: usize) -> Result<usize, LoadError> {
    if count > MOST_LAYERS {
        return Err(
            keys.wrong(key, &format!("{count} layers are more than the {MOST_LAYERS} that are supported"))
        );
    }
    Ok(count)
}

fn sliding_layers(keys: &ConfigKeys<'_>, family: Family, count: usize) -> Result<Vec<bool>, LoadError> {
    if let Some(types) = keys.get("layer_types") {
        let types = types
            .as_array()
            .ok_or_else(|| keys.wrong("layer_types", &format!("expected a list, found {types}")))?;
        if types.len() != count {
            return Err(keys.wrong("layer_types", &format!("{} entries for {count} layers", types.len())));
        }
        let read = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(keys.wrong("layer_types", &format!("{kind} is not supported"))),
        };
        return types.iter().map(read).collect();
    }
    Ok(match family {
        Family::Gemma3 => {
            let pattern =
                keys.count_or("sliding_window_pattern", keys.count_or("_sliding_window_pattern", 6)?)?;
            (1..=count).map(|layer| !layer.is_multiple_of(pattern)).collect()
        }
        Family::Qwen2 | Family::Qwen3 => {
            let full = keys.count_or("max_window_layers", 28)?;
            (0..count).map(|layer| layer >= full).collect()
        }
        _ => vec![true; count],
    })
}

fn gpt2(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, LoadError> {
    let (hidden, heads) = (keys.count_or("n_embd", 768)?, keys.count_or("n_head", 12)?);
    let head_dim = divided(keys, "n_embd", hidden, heads)?;
    let base = if keys.flag_or("scale_attn_weights", true)? { (head_dim as f64).sqrt().recip() } else { 1.0 };
    let by_layer = keys.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    let scale = |index: usize| if by_layer { base / (index + 1) as f64 } else { base };
    let layer = |index| LayerConfig { attention_scale: scale(index), window: None, rope: 0 };
    let count = layer_count(keys, "n_layer", keys.count_or("n_layer", 12)?)?;
    Ok(DecoderConfig {
        vocab_size: keys.count("vocab_size")?,
        hidden_size: hidden,
        intermediate_size: keys.count_or("n_inner", 4 * hidden)?,
        layers: (0..count).map(layer).collect(),
        heads,
        kv_heads: heads,
        head_dim,
        max_positions: keys.count_or("n_positions", 1024)?,
        norm: NormConfig::Layer { epsilon: keys.number_or("layer_norm_epsilon", 1e-5)? },
        norm_placement: NormPlacement::Pre,
        residual: Residual::Sequential,
        activation: activation(keys, &["activation_function"], "gelu_new")?,
        mlp: MlpKind::Plain,
        attention_bias: AttentionBias::All,
        mlp_bias: true,
        qk_norm: false,
        positions: Positions::Learned,
        embedding_scale: 1.0,
        head: head(keys, true)?,
    })
}

fn gpt_neox(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, LoadError> {
    let (hidden, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
    let head_dim = divided(keys, "hidden_size", hidden, heads)?;
    let parallel = keys.flag_or("use_parallel_residual", true)?;
    let bias = keys.flag_or("attention_bias", true)?;
    Ok(DecoderConfig {
        vocab_size: keys.count("vocab_size")?,
        hidden_size: hidden,
        intermediate_size: keys.count("intermediate_size")?,
        layers: layers(keys, Family::GptNeoX, (head_dim as f64).sqrt().recip())?,
        heads,
        kv_heads: heads,
        head_dim,
        max_positions: keys.count("max_position_embeddings")?,
        norm: NormConfig::Layer { epsilon: keys.number_or("layer_norm_eps", 1e-5)? },
        norm_placement: NormPlacement::Pre,
        residual: if parallel { Residual::Parallel } else { Residual::Sequential },
        activation: activation(keys, &["hidden_act"], "gelu")?,
        mlp: MlpKind::Plain,
        attention_bias: if bias { AttentionBias::All } else { AttentionBias::None },
        mlp_bias: true,
        qk_norm: false,
        positions: Positions::Rotary(vec![rope_json::partial(keys, head_dim)?]),
        embedding_scale: 1.0,
        head: head(keys, false)?,
    })
}

fn divided(keys: &ConfigKeys<'_>, key: &str, whole: usize, parts: usize) -> Result<usize, LoadError> {
    if whole.is_multiple_of(parts) {
        Ok(whole / parts)
    } else {
        Err(keys.wrong(key, &format!("{whole} is not divisible by {parts} heads")))
    }
}

fn head(keys: &ConfigKeys<'_>, tied_by_default: bool) -> Result<Head, LoadError> {
    Ok(if keys.flag_or("tie_word_embeddings", tied_by_default)? { Head::Tied } else { Head::Untied })
}

/// The first of `names` that is set. transformers' older gemma3 configurations name the same function twice.
fn activation(keys: &ConfigKeys<'_>, names: &[&str], default: &str) -> Result<Activation, LoadError> {
    let mut found = (names[0], default);
    for &name in names.iter().rev() {
        if let Some(value) = keys.optional_text(name)? {
            found = (name, value);
        }
    }
    match found.1 {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => {
            Err(keys.wrong(found.0, &format!("`{other}` is not supported (silu, gelu, gelu_new, relu)")))
        }
    }
}
