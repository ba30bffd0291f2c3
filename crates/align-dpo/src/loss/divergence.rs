//! Divergences from the reference that stand behind a preference loss.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::stable::{exp_minus_one, log_sigmoid};

/// Which divergence from the reference the policy is held by; it turns log-ratios into scores.
///
/// # Source
/// Wang et al. 2023, *Beyond Reverse KL*, [arXiv:2309.16240](https://arxiv.org/abs/2309.16240): the score is `f′(π/π_ref)`,
/// with the constants that make it 0 where the two agree, as in TRL from 1.16 on. Constants cancel in the margin, but not
/// where scores are divided by lengths first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// `s = x`: DPO itself.
    ReverseKl {},
    /// `s = 1 − e^−x`
    ForwardKl {},
    /// `s = log 2 + log σ(x)`
    JensenShannon {},
    /// `s = (e^((α−1)·x) − 1) / (α−1)`; at 1, the limit `s = x`.
    Alpha {
        /// 0 is the forward and 1 the reverse KL divergence; one half unless given.
        #[serde(default = "one_half")]
        alpha: f64,
    },
}

impl Divergence {
    /// The scores of log-ratios `log π(y) − log π_ref(y)`.
    ///
    /// Exponents are cut off at 80 (as in TRL for the α-divergence), beyond which a log-ratio has no gradient.
    ///
    /// # Shapes
    /// - `log_ratios`, result: `[pairs]`
    #[must_use]
    pub fn scores(self, log_ratios: Tensor<1>) -> Tensor<1> {
        match self {
            Self::ReverseKl {} => log_ratios,
            Self::ForwardKl {} => -exp_minus_one(-log_ratios),
            Self::JensenShannon {} => log_sigmoid(log_ratios) + std::f64::consts::LN_2,
            Self::Alpha { alpha } if (alpha - 1.0).abs() < 1e-6 => log_ratios,
            Self::Alpha { alpha } => exp_minus_one(log_ratios * (alpha - 1.0)) / (alpha - 1.0),
        }
    }
}

impl Default for Divergence {
    fn default() -> Self {
        Self::ReverseKl {}
    }
}

fn one_half() -> f64 {
    0.5
}
