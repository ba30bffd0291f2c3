//! Small models of every family.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use align_model::{
    decoder::{Decoder, ParameterSource},
    pretrained::{Architecture, Checkpoint, LoadError, SaveOptions},
};
use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

pub(crate) const FAMILIES: [&str; 7] =
    ["llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2", "gpt_neox"];

/// The configuration of a small model.
pub(crate) fn config(model_type: &str) -> Value {
    if model_type == "gpt2" {
        return json!({"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 16});
    }
    let mut config = json!({
        "model_type": model_type, "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12,
        "num_attention_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 16,
    });
    let further = match model_type {
        "gpt_neox" => json!({"rotary_pct": 0.5}),
        "gemma3_text" => json!({"num_key_value_heads": 1, "head_dim": 6, "sliding_window": 4}),
        "qwen3" => json!({"num_key_value_heads": 1, "head_dim": 6, "tie_word_embeddings": true}),
        "mistral" => json!({"num_key_value_heads": 1, "sliding_window": 4}),
        _ => json!({"num_key_value_heads": 1}),
    };
    config.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    config
}

pub(crate) fn architecture(config: &Value) -> Architecture {
    Architecture::from_json(Path::new("config.json"), config.clone()).unwrap()
}

/// The configuration with other values; null removes a key.
pub(crate) fn with(mut config: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
            value => config[key] = value.clone(),
        }
    }
    config
}

/// Gives every weight of a model another value, none of which bf16 or f16 can hold exactly, and remembers them all.
#[derive(Default)]
pub(crate) struct Distinct {
    pub(crate) values: BTreeMap<String, Vec<f32>>,
    next: u32,
}

impl ParameterSource for Distinct {
    type Error = std::convert::Infallible;

    fn parameter(&mut self, path: &str, shape: &[usize]) -> Result<Vec<f32>, Self::Error> {
        let count = shape.iter().product::<usize>() as u32;
        let values: Vec<f32> =
            (self.next..self.next + count).map(|i| i as f32 * 1.001 / 1024.0 - 0.5).collect();
        self.next += count;
        self.values.insert(path.to_string(), values.clone());
        Ok(values)
    }
}

/// A model whose weights are all different.
pub(crate) fn distinct(architecture: &Architecture) -> (Decoder, BTreeMap<String, Vec<f32>>) {
    let mut source = Distinct::default();
    let Ok(model) = Decoder::build(architecture.config(), &mut source, &Device::flex());
    (model, source.values)
}

/// A directory with a model of the family.
pub(crate) fn saved(config: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let architecture = architecture(config);
    architecture.save(&distinct(&architecture).0, directory.path(), SaveOptions::default()).unwrap();
    directory
}

/// Opens and loads.
pub(crate) fn load(directory: &Path) -> Result<Decoder, LoadError> {
    Checkpoint::open(directory)?.load(&Device::flex())
}

/// The files of a directory by their names.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry =
        |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    fs::read_dir(directory).unwrap().map(|e| entry(e.unwrap().path())).collect()
}

/// Tensors of a safetensors file: shapes and f32 values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    file.iter().map(|(name, view)| (name.into(), (view.shape().to_vec(), values(view.data())))).collect()
}

pub(crate) fn write_tensors(path: &Path, tensors: &Tensors) {
    let encoded: Vec<Vec<u8>> =
        tensors.values().map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&encoded).map(|((name, (shape, _)), bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Changes the tensors of a saved model.
pub(crate) fn edit(directory: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = directory.join("model.safetensors");
    let mut tensors = read_tensors(&path);
    change(&mut tensors);
    write_tensors(&path, &tensors);
}

/// A safetensors file made by hand: header and data.
pub(crate) fn raw_file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// Fails unless the message has every part.
#[track_caller]
pub(crate) fn assert_says(error: &LoadError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}
