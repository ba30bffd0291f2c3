//! Losses of pairs that need no reference policy.

use align_model::number::{NonNegative, Positive, ProperFraction};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    margin::{hinge_loss, ipo_loss, sigmoid_loss},
    odds::orpo_loss,
    pair::{SequenceScale, at_least_one},
    stable::{LARGEST_EXPONENT, exp_minus_one},
};

/// Log-probabilities of pairs of completions under the policy alone.
#[derive(Debug, Clone)]
pub struct ReferenceFreeLogProbs {
    /// `log π(y_c)`, summed over the completion. `[pairs]`
    pub chosen: Tensor<1>,
    /// `log π(y_r)`, summed over the completion. `[pairs]`
    pub rejected: Tensor<1>,
    /// Tokens of the chosen completion. `[pairs]`
    pub chosen_tokens: Tensor<1>,
    /// Tokens of the rejected completion. `[pairs]`
    pub rejected_tokens: Tensor<1>,
}

impl ReferenceFreeLogProbs {
    /// Log-probabilities of the chosen and of the rejected completions on this scale. `[pairs]` each
    #[must_use]
    pub fn scaled(&self, scale: SequenceScale) -> (Tensor<1>, Tensor<1>) {
        let (chosen, rejected) = (self.chosen.clone(), self.rejected.clone());
        match scale {
            SequenceScale::Sum => (chosen, rejected),
            SequenceScale::Mean => {
                (chosen / at_least_one(&self.chosen_tokens), rejected / at_least_one(&self.rejected_tokens))
            }
        }
    }
}

/// What a completion's log-probability says of its reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ImplicitReward {
    /// The log-probability itself: CPO, SimPO, TPO.
    LogProbability {},
    /// `(1 − p^−α) / α`, whose limit at α = 0 is the log-probability: AlphaPO.
    ///
    /// # Source
    /// Gupta et al. 2025, *AlphaPO*, [arXiv:2501.03884](https://arxiv.org/abs/2501.03884).
    Alpha {
        /// The shape of the reward; 0 is the log-probability.
        alpha: f64,
    },
}

impl ImplicitReward {
    /// The rewards of log-probabilities; an exponent is cut off at 80.
    ///
    /// # Shapes
    /// - `log_probs`, result: `[pairs]`
    #[must_use]
    pub fn of(self, log_probs: Tensor<1>) -> Tensor<1> {
        match self {
            Self::Alpha { alpha } if alpha != 0.0 => exp_minus_one(log_probs * -alpha) / -alpha,
            _ => log_probs,
        }
    }

    /// The reward of one log-probability, for a report.
    pub(crate) fn value(self, log_prob: f64) -> f64 {
        match self {
            Self::Alpha { alpha } if alpha != 0.0 => {
                (log_prob * -alpha).min(LARGEST_EXPONENT).exp_m1() / -alpha
            }
            _ => log_prob,
        }
    }
}

impl Default for ImplicitReward {
    fn default() -> Self {
        Self::LogProbability {}
    }
}

/// The margin that SimPO wants, in either of the ways it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SimpoMargin {
    /// γ, as in the paper, TRL and LLaMA-Factory: what is subtracted from `β·m`.
    Gamma(NonNegative),
    /// γ/β, as in the authors' and open-instruct's configurations: what is subtracted from `m`.
    GammaBetaRatio(NonNegative),
}

impl SimpoMargin {
    /// What is subtracted from the margin before β multiplies it.
    #[must_use]
    pub fn before_beta(self, beta: Positive) -> f64 {
        match self {
            Self::Gamma(gamma) => gamma.get() / beta.get(),
            Self::GammaBetaRatio(ratio) => ratio.get(),
        }
    }
}

/// What is minimised of each pair without a reference. TPO's losses are the same, beside the likelihood of a third
/// completion.
///
/// # Source
/// CPO: Xu et al. 2024, [arXiv:2401.08417](https://arxiv.org/abs/2401.08417); SimPO: Meng et al. 2024,
/// [arXiv:2405.14734](https://arxiv.org/abs/2405.14734), Eq. 6; TPO: Saeidi et al. 2024,
/// [arXiv:2405.16681](https://arxiv.org/abs/2405.16681); SLiC-HF: Zhao et al. 2023,
/// [arXiv:2305.10425](https://arxiv.org/abs/2305.10425); in the forms of TRL,
/// [cpo_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/experimental/cpo/cpo_trainer.py#L677-L748).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferenceFreeLoss {
    /// CPO: [`sigmoid_loss`] of sums.
    Sigmoid {
        /// Probability that a label is wrong; 0 unless given.
        #[serde(default = "none")]
        label_smoothing: ProperFraction,
    },
    /// CPO's hinge: [`hinge_loss`] of sums.
    Hinge {},
    /// CPO's IPO: [`ipo_loss`].
    Ipo {
        /// Means, as in TRL, unless given.
        #[serde(default = "SequenceScale::mean")]
        scale: SequenceScale,
    },
    /// SimPO, and TPO-L: [`sigmoid_loss`] of means, with a margin.
    Simpo {
        /// By how much the chosen completion is to be ahead; γ = 0.5 unless given.
        #[serde(default = "half")]
        margin: SimpoMargin,
        /// Probability that a label is wrong; 0 unless given.
        #[serde(default = "none")]
        label_smoothing: ProperFraction,
    },
    /// [`orpo_loss`] of means.
    Orpo {},
    /// SLiC-HF: `max(0, δ − m)` of sums; β has no part in it.
    Slic {
        /// By how much the chosen completion is to be ahead.
        delta: Positive,
    },
}

impl ReferenceFreeLoss {
    /// One term a pair; their mean is the batch's loss. ORPO's odds are of probabilities: `reward` has no part in them.
    ///
    /// # Shapes
    /// - result: `[pairs]`
    #[must_use]
    pub fn per_pair(
        self,
        pairs: &ReferenceFreeLogProbs,
        beta: Positive,
        reward: ImplicitReward,
    ) -> Tensor<1> {
        let (chosen, rejected) = pairs.scaled(self.scale());
        let margins = || reward.of(chosen.clone()) - reward.of(rejected.clone());
        match self {
            Self::Sigmoid { label_smoothing } => sigmoid_loss(margins(), beta, label_smoothing),
            Self::Hinge {} => hinge_loss(margins(), beta),
            Self::Ipo { .. } => ipo_loss(margins(), beta),
            Self::Simpo { margin, label_smoothing } => {
                sigmoid_loss(margins() - margin.before_beta(beta), beta, label_smoothing)
            }
            Self::Orpo {} => orpo_loss(chosen, rejected, beta),
            Self::Slic { delta } => hinge_loss(margins() / delta.get(), Positive::new(1.0)) * delta.get(),
        }
    }

    /// Whether a completion counts by its sum or by its mean.
    #[must_use]
    pub fn scale(self) -> SequenceScale {
        match self {
            Self::Sigmoid { .. } | Self::Hinge {} | Self::Slic { .. } => SequenceScale::Sum,
            Self::Ipo { scale } => scale,
            Self::Simpo { .. } | Self::Orpo {} => SequenceScale::Mean,
        }
    }
}

fn none() -> ProperFraction {
    ProperFraction::new(0.0)
}

fn half() -> SimpoMargin {
    SimpoMargin::Gamma(NonNegative::new(0.5))
}
