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
//! adapter merged into it, and the logits are those of the two together. The adapter of a reward model makes one of the
//! base, and its scores stand in for logits: [labels], or [n, labels] of a token classifier.

use std::{error::Error, fs, path::Path};

use align_kit::model::{
    adapter::SavedAdapter,
    causal_lm::{CausalLm, TokenBatch},
    decoder::Decoder,
    pretrained::{Checkpoint, Classifier, ClassifierKind, SaveOptions, SavedDtype},
    tokenizer::SpecialTokens,
};
use align_kit::reward::model::{load_reward_adapter, save_reward_model};
use burn::tensor::{Device, Tensor};
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
    let adapter = SavedAdapter::open(adapter)?;
    if let Some(head) = adapter.classifier(checkpoint.architecture())? {
        return with_head(model, &checkpoint, (&adapter, &head), out);
    }
    let base = checkpoint.load(&Device::flex())?;
    checkpoint.save(&base, &out.join("base"), SaveOptions::default())?;
    let together = adapter.apply(base, checkpoint.architecture().family())?;
    write_logits(&checkpoint, &together, out)?;
    Ok(checkpoint.save(&together.merge_adapter()?, &out.join("merged"), SaveOptions::default())?)
}

fn with_head(
    path: &Path,
    checkpoint: &Checkpoint,
    (adapter, head): (&SavedAdapter, &Classifier),
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut model = load_reward_adapter(path, checkpoint, adapter, &Device::flex())?;
    let backbone = checkpoint.load_backbone(&Device::flex())?;
    checkpoint.save_classifier(&backbone, head, &out.join("base"), SaveOptions::default())?;
    let ids = ids(checkpoint, model.backbone.vocab_size())?;
    let positions: Vec<usize> = match head.kind {
        ClassifierKind::Sequence => vec![ids.len() - 1],
        ClassifierKind::Token => (0..ids.len()).collect(),
    };
    let scores = model.scores(&TokenBatch::from_sequences(&[&ids]), &positions);
    let shape = match head.kind {
        ClassifierKind::Sequence => vec![head.labels()],
        ClassifierKind::Token => vec![ids.len(), head.labels()],
    };
    write(&ids, scores, shape, out)?;
    model.backbone = model.backbone.merge_adapter()?;
    Ok(save_reward_model(&model, checkpoint, &out.join("merged"), SaveOptions::default())?)
}

fn write_logits(checkpoint: &Checkpoint, model: &Decoder, out: &Path) -> Result<(), Box<dyn Error>> {
    let ids = ids(checkpoint, model.vocab_size())?;
    let logits = model.logits(model.hidden(&TokenBatch::from_sequences(&[&ids])));
    let shape = vec![ids.len(), model.vocab_size()];
    write(&ids, logits, shape, out)
}

fn ids(checkpoint: &Checkpoint, vocab: usize) -> Result<Vec<u32>, Box<dyn Error>> {
    match checkpoint.tokenizer() {
        Ok(tokenizer) => Ok(tokenizer.encode(TEXT, SpecialTokens::Add)?),
        Err(_) => Ok((0..24).map(|i| (i * 7919 + 1) % vocab as u32).collect()),
    }
}

fn write(ids: &[u32], logits: Tensor<2>, shape: Vec<usize>, out: &Path) -> Result<(), Box<dyn Error>> {
    let ids_bytes: Vec<u8> = ids.iter().flat_map(|&id| (id as i32).to_le_bytes()).collect();
    let logits_bytes: Vec<u8> = logits.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect();
    let tensors = [
        ("input_ids", TensorView::new(Dtype::I32, vec![ids.len()], &ids_bytes)?),
        ("logits", TensorView::new(Dtype::F32, shape, &logits_bytes)?),
    ];
    Ok(fs::write(out.join("logits.safetensors"), safetensors::serialize(tensors, None)?)?)
}
