//! Causal language models on burn: loading, text, generation, log-probabilities, training, supervised fine-tuning.
//!
//! Everything that aligns a model starts from one that runs: this crate reads Hugging Face directories and GGUF files,
//! renders chat templates, samples in batches, scores tokens without ever holding all logits, and trains. The other crates
//! of the workspace add objectives; they do not touch a tensor that this crate could have given them.
//!
//! # Layers
//! Each imports only from those above it.
//!
//! | layer | modules |
//! | --- | --- |
//! | numbers, devices and the Hub | [`number`], [`device`], `hub` |
//! | text and data | [`tokenizer`], [`chat`], [`data`] |
//! | models | [`causal_lm`], [`decoder`], [`adapter`], [`pretrained`] |
//! | what models say, what passes cost | [`logprob`], [`generate`], [`memory`] |
//! | training | [`checkpoint`], [`train`] |
//! | fine-tuning, preferences as tokens | [`sft`], [`preference`] |
//! | looking at data | [`inspect`] |
//!
//! # Features
//! No backend is enabled by default: `flex` (CPU), `wgpu`, `vulkan`, `metal`, `cuda`, `rocm`, each forwarded to burn, and
//! `fusion`. `gguf` reads GGUF files. `hub` downloads models and datasets from the Hugging Face Hub.
//!
//! # Example
//! ```no_run
//! use align_model::{generate::{GenerationConfig, generate}, pretrained::Checkpoint, tokenizer::SpecialTokens};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::open("models/SmolLM2-135M-Instruct".as_ref())?;
//! let model = checkpoint.load(&"flex".parse::<align_model::device::DeviceName>()?.open()?)?;
//! let prompt = checkpoint.tokenizer()?.encode("Once upon a time", SpecialTokens::Add)?;
//! let story = generate(&model, &[prompt], &GenerationConfig::default(), None)?;
//! println!("{:?}: {:?}", story[0][0].finish, story[0][0].tokens);
//! # Ok(())
//! # }
//! ```

pub mod number;

pub mod device;

#[cfg(feature = "hub")]
pub mod hub;

pub mod tokenizer;

pub mod chat;

pub mod data;

pub mod causal_lm;

pub mod decoder;

pub mod adapter;

pub mod pretrained;

pub mod logprob;

pub mod generate;

pub mod checkpoint;

pub mod memory;

pub mod train;

pub mod sft;

pub mod preference;

pub mod inspect;
