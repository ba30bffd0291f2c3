//! LLM alignment in Rust.
pub use align_model as model;
