//! Models as they lie on disk: Hugging Face directories and GGUF files, read and written.

mod error;
#[cfg(feature = "gguf")]
pub mod gguf;
mod weights;

pub use error::LoadError;
pub use weights::{HostTensor, WeightSource};
