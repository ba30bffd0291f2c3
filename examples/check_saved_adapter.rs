//! What a model with an adapter computes, for PEFT to compare with:
//!
//! ```text
//! cargo run --release --example check_saved_adapter -- MODEL ADAPTER OUT
//! python scripts/check_peft.py ADAPTER --base OUT/base --logits OUT/logits.safetensors --merged OUT/merged
//! ```
//!
//! `MODEL` is a Hugging Face directory or a GGUF file, `ADAPTER` a directory that `align sft` or PEFT wrote. `OUT` receives
//! the model as a Hugging Face directory, the same with the adapter merged into it, and the logits of the two together,
//! `input_ids` [n] and `logits` [n, vocab].

use std::{error::Error, fs, path::Path};

use align_kit::model::{
    adapter::SavedAdapter,
    causal_lm::{CausalLm, TokenBatch},
    pretrained::{Checkpoint, SaveOptions},
    tokenizer::SpecialTokens,
};
use burn::tensor::Device;
use safetensors::{Dtype, tensor::TensorView};

const TEXT: &str = "Once upon a time, 2 + 2 = 4.\n\n\tNaïve café: 東京, 😀!";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, out] = arguments.as_slice() else { return Err("expected MODEL ADAPTER OUT".into()) };
    let out = Path::new(out);
    let checkpoint = Checkpoint::open(Path::new(model))?;
    let base = checkpoint.load(&Device::flex())?;
    checkpoint.save(&base, &out.join("base"), SaveOptions::default())?;

    let family = checkpoint.architecture().family();
    let together = SavedAdapter::open(Path::new(adapter))?.apply(base, family)?;
    let ids = checkpoint.tokenizer()?.encode(TEXT, SpecialTokens::Add)?;
    let logits = together.logits(together.hidden(&TokenBatch::from_sequences(&[&ids])));
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
    write_logits(&out.join("logits.safetensors"), &ids, &logits)?;
    Ok(checkpoint.save(&together.merge_adapter()?, &out.join("merged"), SaveOptions::default())?)
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
