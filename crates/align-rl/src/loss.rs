//! The mathematics of learning from scores: pure functions, one entry an action token, nothing reduced.
//!
//! What has gradients is made of tensors, packed: the action tokens of one sequence after another, without padding, and how
//! many belong to each. What has none (advantages, returns, whitening) is made of slices of `f64` on the host.
//!
//! ```text
//! scores ──AdvantageEstimator──► advantages ─┐
//! log-probabilities ──RatioLevel──► ratios ──┴─Surrogate──► terms ──Aggregation──► loss
//! ```
//!
//! [`PolicyObjective`](crate::PolicyObjective) puts these together. Where libraries mean different numbers by one name, the
//! difference is a parameter; `docs/conventions.md` has the table.

mod advantage;
mod aggregation;
mod covariance;
mod entropy;
mod importance;
mod ratio;
mod returns;
mod sequences;
mod surrogate;
mod terms;
mod value;
mod whiten;

pub use advantage::{AdvantageEstimator, AdvantageScale, Advantages, Population, ScoreRange, ScoredGroups};
pub use aggregation::{Accumulation, Aggregation, StepTotals};
pub use covariance::{CovarianceRange, clip_cov_mask, kl_cov_mask};
pub use entropy::{AdaptiveEntropy, EntropyBonus, EntropyController, quantile};
pub use importance::{ImportanceCorrection, off_policy_mask};
pub use ratio::RatioLevel;
pub use returns::{ScorePlacement, gae, penalize_missing_end, place_score, returns_to_go};
pub use surrogate::Surrogate;
pub use terms::{
    CispoBounds, GammaShape, cispo_loss, clipped_loss, dppo_loss, dro_loss, gmpo_loss, kl_cov_loss,
    policy_gradient_loss, sapo_loss, vespo_weights,
};
pub use value::{clipped_value_loss, value_is_clipped};
pub use whiten::{Moments, Whitening, whiten, whiten_around_mean};

pub(crate) use ratio::bounded_exp;
pub(crate) use sequences::Sequences;
pub(crate) use surrogate::SurrogateInputs;
