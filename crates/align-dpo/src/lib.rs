//! Learning from preferences.
//!
//! [`loss`] has the losses, pure functions of log-probabilities; [`DpoTrainer`] learns from pairs and [`KtoTrainer`] from
//! single completions that are desirable or not, one optimiser step at a time. A trainer's [`Reference`] is a model, what a
//! model said before ([`ReferenceLogProbs`], kept in a file), or nothing. [`online_round`] has a policy write the pairs
//! that it learns from.

pub mod loss;

mod config;
mod error;
mod objective;
mod online;
mod pairs;
mod reference;
mod report;
mod unpaired;

pub use config::{DpoConfig, KtoConfig, PairWeighting, PreferenceConfigError, ReferencePolicy};
pub use error::PreferenceError;
pub use objective::Objective;
pub use online::{Duel, OnlineError, OnlineRound, online_round};
pub use pairs::DpoTrainer;
pub use reference::{CacheError, CacheKey, MissingLogProbs, Reference, ReferenceLogProbs};
pub use report::PreferenceReport;
pub use unpaired::KtoTrainer;
