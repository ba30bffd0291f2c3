//! SmolLM2, which is not part of the repository: `ALIGN_SMOLLM2` names its GGUF file or its directory.

use std::path::PathBuf;

use align_model::{pretrained::Checkpoint, tokenizer::Tokenizer};

/// The model, opened; `None` where the environment names none.
pub(super) fn smollm2() -> Option<Checkpoint> {
    let path = PathBuf::from(std::env::var_os("ALIGN_SMOLLM2")?);
    Some(Checkpoint::open(&path).unwrap_or_else(|e| panic!("ALIGN_SMOLLM2: {e}")))
}

/// Its tokenizer; `None` where the environment names no model.
pub(super) fn smollm2_tokenizer() -> Option<Tokenizer> {
    Some(smollm2()?.tokenizer().unwrap_or_else(|e| panic!("ALIGN_SMOLLM2: {e}")))
}
