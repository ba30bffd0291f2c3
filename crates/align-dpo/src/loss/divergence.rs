//! Divergences from the reference that stand behind a preference loss.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::stable::log_sigmoid;

/// Exponents above this count as this: their exponential would soon leave what f32 can hold.
const LARGEST_EXPONENT: f64 = 80.0;

/// Which divergence from the reference the policy is held by; it turns log-ratios into scores.
///
/// # Source
/// Wang et al. 2023, *Beyond Reverse KL*, [arXiv:2309.16240](https://arxiv.org/abs/2309.16240): the score is `f′(π/π_ref)`
/// without its constant; in the form of TRL,
/// [dpo_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/dpo_trainer.py#L1400-L1430).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// `s = x`: DPO itself.
    ReverseKl {},
    /// `s = −e^−x`
    ForwardKl {},
    /// `s = log σ(x)`
    JensenShannon {},
    /// `s = e^((α−1)·x) / (α−1)`; at 1, the limit `s = x`.
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
        let exponential = |x: Tensor<1>| x.clamp_max(LARGEST_EXPONENT).exp();
        match self {
            Self::ReverseKl {} => log_ratios,
            Self::ForwardKl {} => -exponential(-log_ratios),
            Self::JensenShannon {} => log_sigmoid(log_ratios),
            Self::Alpha { alpha } if (alpha - 1.0).abs() < 1e-6 => log_ratios,
            Self::Alpha { alpha } => exponential(log_ratios * (alpha - 1.0)) / (alpha - 1.0),
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
