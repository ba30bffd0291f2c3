//! Saves a model as a Hugging Face directory, together with the logits that it computes:
//!
//! ```text
//! cargo run --release --example check_saved_model -- MODEL OUT [float32|bfloat16|float16]
//! python scripts/check_transformers.py OUT --logits OUT/logits.safetensors
//! ```
//!
//! `MODEL` is a Hugging Face directory or a GGUF file. The logits, `input_ids` [n] and `logits` [n, vocab], are those of
//! the saved model, read back; without a tokenizer the ids are spread over the vocabulary.

use std::{error::Error, fs, path::Path};

use align_kit::model::{
    causal_lm::{CausalLm, TokenBatch},
    pretrained::{Checkpoint, SaveOptions, SavedDtype},
    tokenizer::SpecialTokens,
};
use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};

const TEXT: &str = "Once upon a time, 2 + 2 = 4.\n\n\tNaïve café: 東京, 😀!";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, out, dtype) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [model, out] => (model, Path::new(out), SavedDtype::Float32),
        [model, out, dtype] => (model, Path::new(out), serde_json::from_value(dtype.into())?),
        _ => return Err("expected MODEL OUT [float32|bfloat16|float16]".into()),
    };
    let device = Device::flex();
    let checkpoint = Checkpoint::open(Path::new(model))?;
    let loaded = checkpoint.load(&device)?;
    checkpoint.save(&loaded, out, SaveOptions { dtype, ..SaveOptions::default() })?;

    let saved = Checkpoint::open(out)?;
    let model = saved.load(&device)?;
    let ids = match saved.tokenizer() {
        Ok(tokenizer) => tokenizer.encode(TEXT, SpecialTokens::Add)?,
        Err(_) => (0..24).map(|i| (i * 7919 + 1) % model.vocab_size() as u32).collect(),
    };
    let logits = model.logits(model.hidden(&TokenBatch::from_sequences(&[&ids])));
    write_logits(&out.join("logits.safetensors"), &ids, &logits.into_data().iter::<f32>().collect::<Vec<_>>())
}

fn write_logits(path: &Path, ids: &[u32], logits: &[f32]) -> Result<(), Box<dyn Error>> {
    let ids_bytes: Vec<u8> = ids.iter().flat_map(|&id| (id as i32).to_le_bytes()).collect();
    let logits_bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = vec![ids.len(), logits.len() / ids.len()];
    let tensors = [
        ("input_ids", TensorView::new(Dtype::I32, vec![ids.len()], &ids_bytes)?),
        ("logits", TensorView::new(Dtype::F32, shape, &logits_bytes)?),
    ];
    Ok(fs::write(path, safetensors::serialize(tensors, None)?)?)
}
