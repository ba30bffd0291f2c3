//! Weighted sums of losses of pairs, exact over a step of several batches.

use align_model::number::{NonNegative, Positive};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    divergence::Divergence,
    pair::{LikelihoodMean, PairLogProbs, PairLoss},
};

/// A loss and how much it counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedLoss {
    /// The loss.
    pub loss: PairLoss,
    /// What its mean is multiplied by; 1 unless given.
    #[serde(default = "one")]
    pub weight: NonNegative,
}

impl From<PairLoss> for WeightedLoss {
    fn from(loss: PairLoss) -> Self {
        Self { loss, weight: one() }
    }
}

/// What pairs are trained on: `Σ_k w_k · mean(L_k)`.
///
/// MPO ([arXiv:2411.10442](https://arxiv.org/abs/2411.10442)) is 0.8 × sigmoid + 0.2 × `bco_pair` + 1 × sft; RPO
/// ([arXiv:2404.19733](https://arxiv.org/abs/2404.19733)) is sigmoid + α × sft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairObjective {
    /// How strongly the policy is held to its reference.
    pub beta: Positive,
    /// By which divergence it is held.
    pub divergence: Divergence,
    /// The losses that are added up.
    pub losses: Vec<WeightedLoss>,
}

/// What a step, of one or several batches, is averaged over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTotals {
    /// Pairs of the whole step.
    pub pairs: usize,
    /// Tokens of all its chosen completions.
    pub chosen_tokens: usize,
}

impl PairObjective {
    /// What `pairs` add to the loss of their step; the shares of a step's batches add up to its loss, whatever the batches.
    ///
    /// `weights` multiply each pair's terms, as in WPO ([`policy_weights`](super::policy_weights)); a likelihood term
    /// ([`PairLoss::Sft`]) is not weighted.
    ///
    /// # Shapes
    /// - `weights`: `[pairs]`; result: `[1]`
    ///
    /// # Panics
    /// If there are weights and a loss [couples pairs](PairLoss::couples_pairs): it has no term of one pair.
    #[must_use]
    pub fn share_of_step(
        &self,
        pairs: &PairLogProbs,
        weights: Option<&Tensor<1>>,
        totals: StepTotals,
    ) -> Tensor<1> {
        let mut sum = Tensor::zeros([1], &pairs.policy_chosen.device());
        for &WeightedLoss { loss, weight } in &self.losses {
            let share = match (loss, weights) {
                (PairLoss::Sft { mean: LikelihoodMean::Tokens }, _) => {
                    -pairs.chosen_log_likelihood().sum() / totals.chosen_tokens.max(1) as f64
                }
                (PairLoss::Sft { .. }, _) | (_, None) => {
                    loss.per_pair(pairs, self.beta, self.divergence).sum() / totals.pairs as f64
                }
                (_, Some(weights)) => {
                    assert!(!loss.couples_pairs(), "a loss that couples pairs has no weights");
                    let terms = loss.per_pair(pairs, self.beta, self.divergence) * weights.clone();
                    terms.sum() / totals.pairs as f64
                }
            };
            sum = sum + share * weight.get();
        }
        sum
    }

    /// Whether some loss couples pairs: then a step cannot be taken batch by batch.
    #[must_use]
    pub fn couples_pairs(&self) -> bool {
        self.losses.iter().any(|weighted| weighted.loss.couples_pairs())
    }

    /// Whether the reference's log-probabilities matter.
    #[must_use]
    pub fn needs_reference(&self) -> bool {
        self.losses.iter().any(|weighted| weighted.loss.needs_reference())
    }
}

impl Default for PairObjective {
    /// DPO with β = 0.1.
    fn default() -> Self {
        Self {
            beta: Positive::new(0.1),
            divergence: Divergence::default(),
            losses: vec![PairLoss::default().into()],
        }
    }
}

fn one() -> NonNegative {
    NonNegative::new(1.0)
}
