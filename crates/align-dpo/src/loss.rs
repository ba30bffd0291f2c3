//! Losses of learning from preferences: pure functions of log-probabilities, one term a pair or an example.
//!
//! Each loss is a function of its own, with its formula and where it comes from; [`PairLoss`], [`ReferenceFreeLoss`] and
//! [`UnpairedLoss`] name them in configurations and carry their parameters. Where libraries mean different numbers by one
//! name, the difference is a parameter; `docs/conventions.md` has the table.
//!
//! ```text
//! log-probabilities ──► log-ratios ──Divergence──► scores ──► margin ──PairLoss──► one term a pair ──► mean
//! ```
//!
//! In the formulas `c` is the chosen completion, `r` the rejected one, `x` a log-ratio `log π(y) − log π_ref(y)`, `s` the
//! score that a [`Divergence`] makes of it, `m = s_c − s_r` the margin, and `σ` the logistic function. Nothing overflows:
//! logarithms of `σ` are taken in their stable form, with a gradient that is exact on both sides and at 0.

mod divergence;
mod margin;
mod objective;
mod odds;
mod pair;
mod rate;
mod reference_free;
mod running;
mod stable;
mod token_weights;
mod transport;
mod two_sided;
mod unpaired;

pub use divergence::Divergence;
pub use margin::{
    discopop_loss, exo_pair_loss, hinge_loss, ipo_loss, length_regularized_loss, robust_loss, sigmoid_loss,
};
pub use objective::{
    Likelihood, LikelihoodOf, Likelihoods, PairObjective, ReferenceFreeObjective, StepTotals, WeightedLoss,
};
pub use odds::{log_odds, orpo_loss};
pub use pair::{LikelihoodMean, PairLogProbs, PairLoss, SequenceScale};
pub use rate::{FlipRate, InnerFraction, RateError};
pub use reference_free::{ImplicitReward, ReferenceFreeLogProbs, ReferenceFreeLoss, SimpoMargin};
pub use running::{DynamicBeta, DynamicBetaConfig, RunningMean};
pub use token_weights::{
    Desensitized, LengthDesensitization, length_desensitized, policy_weights, weigh_tokens,
};
pub use transport::{aot_loss, aot_unpaired_loss};
pub use two_sided::{
    apo_down_loss, apo_zero_loss, bco_pair_loss, dpop_loss, nca_pair_loss, sppo_hard_loss, sppo_soft_loss,
};
pub use unpaired::{
    Baseline, ClassWeights, UnpairedLogProbs, UnpairedLoss, apo_zero_unpaired_loss, bco_loss, kto_baseline,
    kto_loss,
};

#[cfg(test)]
mod tests;
