//! Learning from scores: rollouts, advantages, policy objectives and their trainers.
//!
//! [`loss`] has the mathematics, pure functions with one entry an action token; [`PolicyObjective`] puts them together.
//! [`rollout`] samples completions, [`environment`] lets the model use tools in between. [`GroupTrainer`] learns from groups of
//! completions, [`PpoTrainer`] with a critic, and [`watch`] says when a run goes wrong. [`online`] learns from preferences
//! between completions and from the best of them, [`distill`] from a teacher.

mod action_reward;
mod constraint;
pub mod critic;
pub mod distill;
pub mod environment;
mod error;
mod experience;
pub mod group;
mod kl;
pub mod loss;
mod objective;
pub mod online;
pub mod ppo;
mod reference;
mod report;
pub mod rollout;
mod scoring;
mod trajectory;
pub mod watch;

pub use action_reward::{ActionReward, ActionRewardFn, ProcessRewards};
pub use constraint::{Constraint, ConstraintConfig, LagrangeMultiplier};
pub use distill::{DistillationConfig, DistillationTrainer};
pub use error::{RlConfigError, RlError};
pub use experience::Experience;
pub use group::{GroupConfig, GroupTrainer};
pub use kl::{KlControl, KlController, KlEstimator, KlPenalty};
pub use objective::{ObjectiveError, PolicyObjective, PolicyShare, PolicyTokens, Preset};
pub use online::{OnlineConfig, OnlinePreferenceTrainer, RejectionSamplingConfig, RejectionSamplingTrainer};
pub use ppo::{PpoConfig, PpoModels, PpoTrainer};
pub use reference::PolicyReference;
pub use report::RlReport;
pub use scoring::{RewardScores, Rewards, ScoredRollouts};
pub use trajectory::{Trajectory, prompted, sampling_distribution};
