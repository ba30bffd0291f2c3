//! Rewards: models, functions, judges and guards.
//!
//! | what | modules |
//! | --- | --- |
//! | reward models: heads on a decoder, their losses and trainers | [`model`], [`loss`], [`trainer`] |
//! | reward functions: what is scored, what a score is, rules, other programs, and how they combine | [`rollout`], [`score`], [`function`], [`rules`], [`command`], [`http`], [`compose`], [`spec`] |
//! | comparing and choosing | [`judge`], [`best_of_n`] |
//! | what a reward must not be fooled by | [`guard`] |
//!
//! # Features
//! No backend is enabled by default; `flex`, `wgpu`, `vulkan`, `metal`, `cuda`, `rocm` and `fusion` are forwarded to burn.
//! `command` runs unit tests as external programs, `http` asks an endpoint.

pub mod loss;

pub mod model;

pub mod trainer;

pub mod rollout;

pub mod score;

pub mod function;

pub mod rules;

pub mod compose;

pub mod judge;

pub mod best_of_n;

pub mod command;

pub mod http;

pub mod spec;

pub mod guard;
