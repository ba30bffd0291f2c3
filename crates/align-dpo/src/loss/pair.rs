//! Losses of pairs against a reference policy.

use align_model::number::{NonNegative, Positive, ProperFraction};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    divergence::Divergence,
    margin::{
        discopop_loss, exo_pair_loss, hinge_loss, ipo_loss, length_regularized_loss, robust_loss,
        sigmoid_loss,
    },
    rate::{FlipRate, InnerFraction},
    transport::{aot_loss, aot_unpaired_loss},
    two_sided::{apo_down_loss, apo_zero_loss, bco_pair_loss, dpop_loss, nca_pair_loss, sppo_hard_loss},
};

/// Log-probabilities of pairs of completions under the policy and its reference.
#[derive(Debug, Clone)]
pub struct PairLogProbs {
    /// `log π(y_c)`, summed over the completion. `[pairs]`
    pub policy_chosen: Tensor<1>,
    /// `log π(y_r)`, summed over the completion. `[pairs]`
    pub policy_rejected: Tensor<1>,
    /// `log π_ref(y_c)`, summed over the completion. `[pairs]`
    pub reference_chosen: Tensor<1>,
    /// `log π_ref(y_r)`, summed over the completion. `[pairs]`
    pub reference_rejected: Tensor<1>,
    /// Tokens of the chosen completion. `[pairs]`
    pub chosen_tokens: Tensor<1>,
    /// Tokens of the rejected completion. `[pairs]`
    pub rejected_tokens: Tensor<1>,
    /// `log π(y_c)` as it is, where `policy_chosen` weighs its tokens ([`length_desensitized`](super::length_desensitized));
    /// only [`PairLoss::Sft`] looks at it. `[pairs]`
    pub unweighted_chosen: Option<Tensor<1>>,
}

impl PairLogProbs {
    /// Log-ratios `log π(y) − log π_ref(y)` of the chosen and of the rejected completions. `[pairs]` each
    #[must_use]
    pub fn log_ratios(&self) -> (Tensor<1>, Tensor<1>) {
        (
            self.policy_chosen.clone() - self.reference_chosen.clone(),
            self.policy_rejected.clone() - self.reference_rejected.clone(),
        )
    }

    /// Scores of the chosen and of the rejected completions: what `divergence` makes of the log-ratios. `[pairs]` each
    #[must_use]
    pub fn scores(&self, divergence: Divergence) -> (Tensor<1>, Tensor<1>) {
        let (chosen, rejected) = self.log_ratios();
        (divergence.scores(chosen), divergence.scores(rejected))
    }

    /// By how much the chosen completion's score, on this scale, is above the rejected one's. `[pairs]`
    #[must_use]
    pub fn margins(&self, divergence: Divergence, scale: SequenceScale) -> Tensor<1> {
        let (chosen, rejected) = self.scores(divergence);
        match scale {
            SequenceScale::Sum => chosen - rejected,
            SequenceScale::Mean => {
                chosen / at_least_one(&self.chosen_tokens) - rejected / at_least_one(&self.rejected_tokens)
            }
        }
    }

    /// `log π(y_c)` with all tokens weighing the same. `[pairs]`
    pub(crate) fn chosen_log_likelihood(&self) -> Tensor<1> {
        self.unweighted_chosen.clone().unwrap_or_else(|| self.policy_chosen.clone())
    }
}

/// Token counts as divisors.
pub(crate) fn at_least_one(tokens: &Tensor<1>) -> Tensor<1> {
    tokens.clone().clamp_min(1.0)
}

/// Whether a completion counts by the sum over its tokens or by their mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SequenceScale {
    /// The sum: longer completions count for more.
    Sum,
    /// The mean per token.
    Mean,
}

impl SequenceScale {
    pub(crate) fn mean() -> Self {
        Self::Mean
    }

    pub(crate) fn sum() -> Self {
        Self::Sum
    }
}

/// Over what a likelihood is averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodMean {
    /// All tokens of the batch's texts, as in TRL.
    #[default]
    Tokens,
    /// Each completion's own tokens, then the completions, as in OpenRLHF and LLaMA-Factory.
    Sequences,
}

impl LikelihoodMean {
    /// What each text's log-likelihood is divided by, so that the mean over the texts is the one meant.
    pub(crate) fn lengths(self, tokens: &Tensor<1>) -> Tensor<1> {
        match self {
            Self::Tokens => at_least_one(&tokens.clone().mean()),
            Self::Sequences => at_least_one(tokens),
        }
    }
}

/// What is minimised of each pair; named as in TRL where TRL has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PairLoss {
    /// [`sigmoid_loss`]: DPO; with smoothing, conservative DPO.
    Sigmoid {
        /// Probability that a label is wrong; 0 unless given. TRL ignores its `label_smoothing` here.
        #[serde(default = "none")]
        label_smoothing: ProperFraction,
    },
    /// [`sigmoid_loss`] of means per token, the `dpo_norm` of open-instruct.
    SigmoidNorm {
        /// Probability that a label is wrong; 0 unless given.
        #[serde(default = "none")]
        label_smoothing: ProperFraction,
    },
    /// [`hinge_loss`].
    Hinge {
        /// Sums, as in TRL, unless given.
        #[serde(default = "SequenceScale::sum")]
        scale: SequenceScale,
    },
    /// [`ipo_loss`].
    Ipo {
        /// Means, as in TRL and LLaMA-Factory, unless given; the authors of DPO and OpenRLHF take sums.
        #[serde(default = "SequenceScale::mean")]
        scale: SequenceScale,
    },
    /// [`exo_pair_loss`].
    ExoPair {
        /// Probability that a label is wrong; 0.001 unless given.
        #[serde(default = "small")]
        label_smoothing: InnerFraction,
    },
    /// [`nca_pair_loss`](super::nca_pair_loss).
    NcaPair {},
    /// [`robust_loss`].
    Robust {
        /// Share of labels that are flipped.
        label_smoothing: FlipRate,
    },
    /// [`bco_pair_loss`](super::bco_pair_loss).
    BcoPair {},
    /// [`sppo_hard_loss`](super::sppo_hard_loss).
    SppoHard {},
    /// [`aot_loss`]: couples the pairs of a batch.
    Aot {
        /// Probability that a label is wrong; 0 unless given.
        #[serde(default = "none")]
        label_smoothing: ProperFraction,
    },
    /// [`aot_unpaired_loss`]: couples the pairs of a batch.
    AotUnpaired {
        /// Probability that a label is wrong; 0 unless given.
        #[serde(default = "none")]
        label_smoothing: ProperFraction,
    },
    /// [`apo_zero_loss`](super::apo_zero_loss).
    ApoZero {},
    /// [`apo_down_loss`](super::apo_down_loss).
    ApoDown {},
    /// [`discopop_loss`].
    Discopop {
        /// How sharply the two losses are told apart; 0.05 unless given.
        #[serde(default = "discopop_temperature")]
        temperature: Positive,
    },
    /// [`dpop_loss`](super::dpop_loss): DPO-positive.
    Dpop {
        /// Price of a chosen completion that becomes less likely.
        lambda: NonNegative,
    },
    /// [`length_regularized_loss`]: R-DPO.
    RDpo {
        /// Price of a token.
        alpha: f64,
    },
    /// Negative log-likelihood of the chosen completion, [`nll_loss`](align_model::sft::nll_loss): a term beside others,
    /// as in MPO and RPO.
    Sft {
        /// Over tokens, as in TRL, unless given.
        #[serde(default)]
        mean: LikelihoodMean,
    },
}

impl PairLoss {
    /// One term a pair; their mean is the batch's loss.
    ///
    /// [`PairLoss::Sft`] over tokens divides by the mean length of the chosen completions in `pairs`; a step of several
    /// batches goes through [`PairObjective`](super::PairObjective), which knows the whole step's.
    ///
    /// # Shapes
    /// - result: `[pairs]`; by rank where [`couples_pairs`](Self::couples_pairs)
    #[must_use]
    pub fn per_pair(self, pairs: &PairLogProbs, beta: Positive, divergence: Divergence) -> Tensor<1> {
        let margins = |scale| pairs.margins(divergence, scale);
        let (chosen, rejected) = pairs.log_ratios();
        let (sum, mean) = (SequenceScale::Sum, SequenceScale::Mean);
        match self {
            Self::Sigmoid { label_smoothing } => sigmoid_loss(margins(sum), beta, label_smoothing),
            Self::SigmoidNorm { label_smoothing } => sigmoid_loss(margins(mean), beta, label_smoothing),
            Self::Hinge { scale } => hinge_loss(margins(scale), beta),
            Self::Ipo { scale } => ipo_loss(margins(scale), beta),
            Self::ExoPair { label_smoothing } => exo_pair_loss(margins(sum), beta, label_smoothing),
            Self::NcaPair {} => nca_pair_loss(chosen, rejected, beta),
            Self::Robust { label_smoothing } => robust_loss(margins(sum), beta, label_smoothing),
            Self::BcoPair {} => bco_pair_loss(chosen, rejected, beta),
            Self::SppoHard {} => sppo_hard_loss(chosen, rejected, beta),
            Self::Aot { label_smoothing } => {
                let policy = pairs.policy_chosen.clone() - pairs.policy_rejected.clone();
                let reference = pairs.reference_chosen.clone() - pairs.reference_rejected.clone();
                aot_loss(policy, reference, beta, label_smoothing)
            }
            Self::AotUnpaired { label_smoothing } => {
                aot_unpaired_loss(chosen, rejected, beta, label_smoothing)
            }
            Self::ApoZero {} => apo_zero_loss(chosen, rejected, beta),
            Self::ApoDown {} => apo_down_loss(chosen, rejected, beta),
            Self::Discopop { temperature } => discopop_loss(margins(sum), beta, temperature),
            Self::Dpop { lambda } => dpop_loss(chosen, rejected, beta, lambda),
            Self::RDpo { alpha } => {
                let lengths = (pairs.chosen_tokens.clone(), pairs.rejected_tokens.clone());
                length_regularized_loss(margins(sum), lengths.0, lengths.1, beta, alpha)
            }
            Self::Sft { mean } => -pairs.chosen_log_likelihood() / mean.lengths(&pairs.chosen_tokens),
        }
    }

    /// Whether a pair's term depends on the other pairs of the batch, so that a batch cannot be taken in parts.
    #[must_use]
    pub fn couples_pairs(self) -> bool {
        matches!(self, Self::Aot { .. } | Self::AotUnpaired { .. })
    }

    /// Whether the loss is one of margins: only there do the terms of a divergence that a prompt's completions share cancel,
    /// so that one other than the reverse KL divergence means what it says. The other losses look at log-ratios whatever
    /// the divergence.
    #[must_use]
    pub fn takes_divergence(self) -> bool {
        matches!(
            self,
            Self::Sigmoid { .. }
                | Self::SigmoidNorm { .. }
                | Self::Hinge { .. }
                | Self::Ipo { .. }
                | Self::ExoPair { .. }
                | Self::Robust { .. }
                | Self::Discopop { .. }
                | Self::RDpo { .. }
                | Self::Sft { .. }
        )
    }

    /// Whether the reference's log-probabilities matter.
    #[must_use]
    pub fn needs_reference(self) -> bool {
        !matches!(self, Self::Sft { .. })
    }
}

impl Default for PairLoss {
    fn default() -> Self {
        Self::Sigmoid { label_smoothing: none() }
    }
}

fn none() -> ProperFraction {
    ProperFraction::new(0.0)
}

fn small() -> InnerFraction {
    InnerFraction::SMALL
}

fn discopop_temperature() -> Positive {
    Positive::new(0.05)
}
