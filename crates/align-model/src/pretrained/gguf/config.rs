//! `config.json` from GGUF metadata.

use serde_json::{Map, Value, json};

use super::architecture::Architecture;
use super::metadata::Metadata;
use super::{GgufModel, rope};
use crate::pretrained::LoadError;

/// Gemma 3 has one layer of full attention after every five with a window; files do not say so.
const GEMMA_WINDOW_PATTERN: u64 = 6;
/// The only Gemma 3 with as many layers (27B) scales its queries by another number than the size of a head.
const GEMMA_27B_LAYERS: u64 = 62;

/// Everything `config.json` would say about `model`.
pub(super) fn hugging_face_config(model: &GgufModel) -> Result<Value, LoadError> {
    let keys = Keys::new(model)?;
    let mut config = Map::new();
    match model.architecture {
        Architecture::Llama => llama(&keys, &mut config)?,
        Architecture::Qwen2 => qwen2(&keys, &mut config)?,
        Architecture::Qwen3 => qwen3(&keys, &mut config)?,
        Architecture::Gemma3 => gemma3(&keys, &mut config)?,
        Architecture::Gpt2 => gpt2(&keys, &mut config)?,
        Architecture::GptNeox => gpt_neox(&keys, &mut config)?,
    }
    config.insert("vocab_size".to_owned(), json!(keys.vocabulary));
    config.insert("tie_word_embeddings".to_owned(), json!(!model.has_tensor("output.weight")));
    for (key, stored) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        let id = model.metadata.integer(&format!("tokenizer.ggml.{stored}_token_id"))?;
        config.insert(format!("{key}_token_id"), json!(id));
    }
    config.insert("torch_dtype".to_owned(), json!("float32"));
    Ok(Value::Object(config))
}

/// Look-ups under the architecture's prefix, and the sizes that every architecture needs.
struct Keys<'a> {
    model: &'a GgufModel,
    hidden: u64,
    layers: u64,
    heads: u64,
    vocabulary: usize,
}

impl<'a> Keys<'a> {
    fn new(model: &'a GgufModel) -> Result<Self, LoadError> {
        let embedding = model.tensors.iter().find(|tensor| tensor.stored.name == "token_embd.weight");
        let embedding = embedding.ok_or_else(|| LoadError::MissingTensor {
            path: model.path.clone(),
            tensor: "token_embd.weight".to_owned(),
        })?;
        let mut keys = Self { model, hidden: 0, layers: 0, heads: 0, vocabulary: embedding.shape[0] };
        keys.hidden = keys.size("embedding_length")?;
        keys.layers = keys.size("block_count")?;
        keys.heads = keys.size("attention.head_count")?;
        if embedding.shape.len() != 2 || embedding.shape[1] as u64 != keys.hidden {
            return Err(keys.metadata().invalid(
                &keys.key("embedding_length"),
                format!("is {}, but token_embd.weight has shape {:?}", keys.hidden, embedding.shape),
            ));
        }
        Ok(keys)
    }

    fn metadata(&self) -> &'a Metadata {
        &self.model.metadata
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.model.architecture.name())
    }

    /// A positive integer that has to be there.
    fn size(&self, suffix: &str) -> Result<u64, LoadError> {
        let key = self.key(suffix);
        match self.metadata().required_integer(&key)? {
            0 => Err(self.metadata().invalid(&key, "is zero")),
            size => Ok(size),
        }
    }

    fn integer(&self, suffix: &str) -> Result<Option<u64>, LoadError> {
        self.metadata().integer(&self.key(suffix))
    }

    fn number(&self, suffix: &str) -> Result<Option<f64>, LoadError> {
        self.metadata().number(&self.key(suffix))
    }

    fn required_number(&self, suffix: &str) -> Result<f64, LoadError> {
        let key = self.key(suffix);
        self.metadata().number(&key)?.ok_or_else(|| self.metadata().invalid(&key, "the key is missing"))
    }

    fn head_size(&self) -> Result<u64, LoadError> {
        if self.integer("attention.key_length")?.is_some() {
            return self.size("attention.key_length");
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let reason = format!("{} heads do not divide {} hidden units", self.heads, self.hidden);
            return Err(self.metadata().invalid(&self.key("attention.head_count"), reason));
        }
        Ok(self.hidden / self.heads)
    }

    fn any_tensor(&self, suffixes: &[&str]) -> bool {
        let ends = |name: &str| suffixes.iter().any(|suffix| name.ends_with(suffix));
        self.model.tensors.iter().any(|tensor| ends(&tensor.stored.name))
    }
}

fn extend(config: &mut Map<String, Value>, entries: Value) {
    if let Value::Object(entries) = entries {
        config.extend(entries);
    }
}

/// What Llama and its relatives have in common.
fn decoder(keys: &Keys<'_>, head_size: u64, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let divisors = keys.model.rotary_divisors.as_deref();
    let prefix = keys.model.architecture.name();
    let scaling = rope::scaling(keys.metadata(), prefix, &rope::Rotary { head_size, theta, divisors })?;
    extend(
        config,
        json!({
            "hidden_size": keys.hidden,
            "intermediate_size": keys.size("feed_forward_length")?,
            "num_hidden_layers": keys.layers,
            "num_attention_heads": keys.heads,
            "num_key_value_heads": keys.integer("attention.head_count_kv")?.unwrap_or(keys.heads),
            "head_dim": head_size,
            "rms_norm_eps": keys.required_number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": theta,
            "rope_scaling": scaling,
            "max_position_embeddings": keys.size("context_length")?,
        }),
    );
    Ok(())
}

/// Llama and Mistral share an architecture in GGUF; only Mistral has a window.
fn llama(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let window = keys.integer("attention.sliding_window")?.filter(|&window| window > 0);
    let (model_type, class) =
        if window.is_some() { ("mistral", "MistralForCausalLM") } else { ("llama", "LlamaForCausalLM") };
    extend(config, json!({ "architectures": [class], "model_type": model_type, "hidden_act": "silu" }));
    let stated = |key: &str| keys.integer(key).map(|size| size.is_some());
    let head_size = if !stated("attention.key_length")? && stated("rope.dimension_count")? {
        keys.size("rope.dimension_count")?
    } else {
        keys.head_size()?
    };
    decoder(keys, head_size, config)?;
    if let Some(window) = window {
        extend(config, json!({ "sliding_window": window }));
    }
    let attention_bias = keys.any_tensor(&[".attn_q.bias", ".attn_output.bias"]);
    let feed_forward_bias = keys.any_tensor(&[".ffn_up.bias", ".ffn_down.bias"]);
    extend(config, json!({ "attention_bias": attention_bias, "mlp_bias": feed_forward_bias }));
    Ok(())
}

fn qwen2(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    extend(
        config,
        json!({ "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu" }),
    );
    decoder(keys, keys.head_size()?, config)?;
    extend(config, json!({ "use_sliding_window": false, "sliding_window": null }));
    Ok(())
}

fn qwen3(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    extend(
        config,
        json!({ "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu" }),
    );
    decoder(keys, keys.head_size()?, config)?;
    let attention_bias = keys.any_tensor(&[".attn_q.bias"]);
    extend(
        config,
        json!({ "attention_bias": attention_bias, "use_sliding_window": false, "sliding_window": null }),
    );
    Ok(())
}

fn gemma3(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    extend(
        config,
        json!({
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": false,
        }),
    );
    let head_size = keys.head_size()?;
    decoder(keys, head_size, config)?;
    if keys.number("rope.freq_base")?.is_none() {
        extend(config, json!({ "rope_theta": 1_000_000.0 }));
    }
    let query_scale = if keys.layers == GEMMA_27B_LAYERS { keys.hidden / keys.heads } else { head_size };
    extend(
        config,
        json!({
            "rope_local_base_freq": keys.number("rope.freq_base_swa")?.unwrap_or(10_000.0),
            "query_pre_attn_scalar": query_scale,
            "sliding_window": keys.size("attention.sliding_window")?,
            "layer_types": gemma_layer_types(keys)?,
            "final_logit_softcapping": keys.number("final_logit_softcapping")?,
            "attn_logit_softcapping": keys.number("attn_logit_softcapping")?,
        }),
    );
    Ok(())
}

fn gemma_layer_types(keys: &Keys<'_>) -> Result<Vec<&'static str>, LoadError> {
    let key = keys.key("attention.sliding_window_pattern");
    let name = |windowed| if windowed { "sliding_attention" } else { "full_attention" };
    if keys.metadata().is_array(&key) {
        let layers = keys.metadata().integers(&key)?.unwrap_or_default();
        if layers.len() as u64 != keys.layers {
            let reason = format!("has {} entries for {} layers", layers.len(), keys.layers);
            return Err(keys.metadata().invalid(&key, reason));
        }
        return Ok(layers.into_iter().map(|windowed| name(windowed != 0)).collect());
    }
    let pattern = keys.metadata().integer(&key)?.unwrap_or(GEMMA_WINDOW_PATTERN);
    let layers = keys.layers.min(keys.model.tensors.len() as u64);
    Ok((1..=layers).map(|layer| name(pattern == 0 || !layer.is_multiple_of(pattern))).collect())
}

fn gpt2(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let context = keys.size("context_length")?;
    extend(
        config,
        json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "n_embd": keys.hidden,
            "n_layer": keys.layers,
            "n_head": keys.heads,
            "n_positions": context,
            "n_ctx": context,
            "n_inner": keys.integer("feed_forward_length")?,
            "layer_norm_epsilon": keys.required_number("attention.layer_norm_epsilon")?,
        }),
    );
    Ok(())
}

fn gpt_neox(keys: &Keys<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let head_size = keys.head_size()?;
    let rotary_size = keys.integer("rope.dimension_count")?.unwrap_or(head_size);
    let theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let rotary = rope::Rotary { head_size: rotary_size, theta, divisors: None };
    let parallel = keys.metadata().boolean(&keys.key("use_parallel_residual"))?.unwrap_or(true);
    extend(
        config,
        json!({
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "hidden_act": "gelu",
            "hidden_size": keys.hidden,
            "intermediate_size": keys.size("feed_forward_length")?,
            "num_hidden_layers": keys.layers,
            "num_attention_heads": keys.heads,
            "rotary_pct": rotary_size as f64 / head_size as f64,
            "rotary_emb_base": theta,
            "rope_theta": theta,
            "rope_scaling": rope::scaling(keys.metadata(), "gptneox", &rotary)?,
            "layer_norm_eps": keys.required_number("attention.layer_norm_epsilon")?,
            "max_position_embeddings": keys.size("context_length")?,
            "use_parallel_residual": parallel,
            "attention_bias": keys.any_tensor(&[".attn_qkv.bias"]),
        }),
    );
    Ok(())
}
