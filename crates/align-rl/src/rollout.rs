//! Rollouts: what a policy makes of prompts, as it was sampled, and as rows that a person can read.

mod config;
mod example;
mod log;
mod row;
mod sample;
mod selection;

pub use config::{LongPrompt, PromptLimit, RolloutConfig};
pub use example::{PromptDataError, PromptError, PromptExample, PromptTokenizer};
pub use log::{RolloutLog, RolloutLogError, read_rollouts};
pub use row::RolloutRow;
pub use sample::{
    LeftOutPrompt, RolloutCounts, RolloutError, Rollouts, Sampled, WhyLeftOut, sample_rollouts,
};
pub use selection::{OfGroup, RolloutOrder, RolloutSelection};
