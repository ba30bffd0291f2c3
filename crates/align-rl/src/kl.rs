//! How far the policy is from its reference: estimators, the penalty, and what steers its weight.

mod controller;
mod estimator;

pub use controller::{KlControl, KlController};
pub use estimator::{KlEstimator, KlPenalty};
