//! Saves a model as a Hugging Face directory, together with the logits that it computes:
//!
//! ```text
//! cargo run --release --example check_saved_model -- MODEL OUT [float32|bfloat16|float16]
//! python scripts/check_transformers.py OUT --logits OUT/logits.safetensors
//!
//! cargo run --release --example check_saved_model -- MODEL OUT --adapter ADAPTER
//! python scripts/check_peft.py ADAPTER --base OUT/base --logits OUT/logits.safetensors --merged OUT/merged
//! ```
//!
//! `MODEL` is a Hugging Face directory or a GGUF file. The logits, `input_ids` [n] and `logits` [n, vocab], are those of
//! the saved model, read back; without a tokenizer the ids are spread over the vocabulary.
//!
//! `ADAPTER` is a directory that `align` or PEFT wrote. `OUT/base` then receives the model, `OUT/merged` the same with the
//! adapter merged into it, and the logits are those of the two together.

use std::{error::Error, fs, path::Path};

use align_kit::model::{
    adapter::SavedAdapter,
    causal_lm::{CausalLm, TokenBatch},
    decoder::Decoder,
    pretrained::{Checkpoint, SaveOptions, SavedDtype},
    tokenizer::SpecialTokens,
};
use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};

const TEXT: &str = "Once upon a time, 2 + 2 = 4.\n\n\tNaïve café: 東京, 😀!";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [model, out, "--adapter", adapter] => with_adapter(model.as_ref(), out.as_ref(), adapter.as_ref()),
        [model, out] => alone(model.as_ref(), out.as_ref(), SavedDtype::Float32),
        [model, out, dtype] => alone(model.as_ref(), out.as_ref(), serde_json::from_value(dtype.into())?),
        _ => Err("expected MODEL OUT [float32|bfloat16|float16], or MODEL OUT --adapter ADAPTER".into()),
    }
}

fn alone(model: &Path, out: &Path, dtype: SavedDtype) -> Result<(), Box<dyn Error>> {
    let checkpoint = Checkpoint::open(model)?;
    let loaded = checkpoint.load(&Device::flex())?;
    checkpoint.save(&loaded, out, SaveOptions { dtype, ..SaveOptions::default() })?;
    let saved = Checkpoint::open(out)?;
    write_logits(&saved, &saved.load(&Device::flex())?, out)
}

fn with_adapter(model: &Path, out: &Path, adapter: &Path) -> Result<(), Box<dyn Error>> {
    let checkpoint = Checkpoint::open(model)?;
    let base = checkpoint.load(&Device::flex())?;
    checkpoint.save(&base, &out.join("base"), SaveOptions::default())?;
    let together = SavedAdapter::open(adapter)?.apply(base, checkpoint.architecture().family())?;
    write_logits(&checkpoint, &together, out)?;
    Ok(checkpoint.save(&together.merge_adapter()?, &out.join("merged"), SaveOptions::default())?)
}

fn write_logits(checkpoint: &Checkpoint, model: &Decoder, out: &Path) -> Result<(), Box<dyn Error>> {
    let ids = match checkpoint.tokenizer() {
        Ok(tokenizer) => tokenizer.encode(TEXT, SpecialTokens::Add)?,
        Err(_) => (0..24).map(|i| (i * 7919 + 1) % model.vocab_size() as u32).collect(),
    };
    let logits = model.logits(model.hidden(&TokenBatch::from_sequences(&[&ids])));
    let ids_bytes: Vec<u8> = ids.iter().flat_map(|&id| (id as i32).to_le_bytes()).collect();
    let logits_bytes: Vec<u8> = logits.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
    let shape = vec![ids.len(), model.vocab_size()];
    let tensors = [
        ("input_ids", TensorView::new(Dtype::I32, vec![ids.len()], &ids_bytes)?),
        ("logits", TensorView::new(Dtype::F32, shape, &logits_bytes)?),
    ];
    Ok(fs::write(out.join("logits.safetensors"), safetensors::serialize(tensors, None)?)?)
}
