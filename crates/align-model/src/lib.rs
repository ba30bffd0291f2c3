//! Causal language models on burn: loading, text, generation, log-probabilities, training, supervised fine-tuning.
//!
//! The layers, in reading order; each imports only from those above it.

pub mod causal_lm;
pub mod chat;
pub mod data;
pub mod decoder;
pub mod device;
pub mod generate;
pub mod logprob;
pub mod number;
pub mod pretrained;
pub mod sft;
pub mod tokenizer;
pub mod train;
