//! The crates of align-kit under one name.
//!
//! Depend on the single crates where one is enough; this one holds no logic of its own.
//!
//! | module | crate | what it does |
//! | --- | --- | --- |
//! | [`model`] | `align-model` | models, text, generation, log-probabilities, training, supervised fine-tuning |
//!
//! # Features
//! `flex` (CPU, on by default), `wgpu`, `vulkan`, `metal`, `cuda`, `rocm` and `fusion` are forwarded to every crate, as are
//! `gguf`, `hub` and `parquet`.
#![doc = ""]
#![doc = include_str!("../README.md")]

pub use align_model as model;
