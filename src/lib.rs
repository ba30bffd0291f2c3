//! The crates of align-kit under one name.
//!
//! Depend on the single crates where one is enough; this one holds no logic of its own.
//!
//! | module | crate | what it does |
//! | --- | --- | --- |
//! | [`dpo`] | `align-dpo` | losses and trainers for preferences: the DPO family, KTO, ORPO, CPO, SimPO |
//! | [`model`] | `align-model` | models, text, generation, log-probabilities, training, supervised fine-tuning |
//! | [`reward`] | `align-reward` | reward models, reward functions and their composition, judges, guards against reward hacking |
//! | [`rl`] | `align-rl` | rollouts, PPO, the GRPO family, environments with tools, and what watches them |
//!
//! # Features
//! `flex` (CPU, on by default), `wgpu`, `vulkan`, `metal`, `cuda`, `rocm` and `fusion` are forwarded to every crate, as are
//! `gguf`, `hub` and `parquet`.
#![doc = ""]
#![doc = include_str!("../README.md")]

pub use align_dpo as dpo;
pub use align_model as model;
pub use align_reward as reward;
pub use align_rl as rl;
