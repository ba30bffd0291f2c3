//! Learning from scores: advantages, policy objectives.
//!
//! [`loss`] has the mathematics, pure functions with one entry an action token; [`PolicyObjective`] puts them together.

mod kl;
pub mod loss;
mod objective;
mod trajectory;

pub use kl::{KlControl, KlController, KlEstimator, KlPenalty};
pub use objective::{ObjectiveError, PolicyObjective, PolicyShare, PolicyTokens, Preset};
pub use trajectory::{Trajectory, prompted, sampling_distribution};
