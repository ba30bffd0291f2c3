//! SmolLM2's tokenizer, which is not part of the repository.

use std::path::Path;

use align_model::tokenizer::Tokenizer;

/// The tokenizer in the directory that `ALIGN_SMOLLM2` names; `None` where it names none.
pub fn smollm2_tokenizer() -> Option<Tokenizer> {
    let directory = std::env::var_os("ALIGN_SMOLLM2")?;
    Some(Tokenizer::from_directory(Path::new(&directory)).unwrap_or_else(|e| panic!("ALIGN_SMOLLM2: {e}")))
}
