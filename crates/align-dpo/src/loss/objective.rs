//! Weighted sums of losses of pairs, exact over a step of several batches.

use align_model::number::{NonNegative, Positive, ProperFraction};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    divergence::Divergence,
    pair::{LikelihoodMean, PairLogProbs, PairLoss, at_least_one},
    reference_free::{ImplicitReward, ReferenceFreeLogProbs, ReferenceFreeLoss, SimpoMargin},
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
    /// Tokens of all its texts whose likelihood counts: of the chosen completions, unless the objective says otherwise.
    pub likelihood_tokens: usize,
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
                    -pairs.chosen_log_likelihood().sum() / totals.likelihood_tokens.max(1) as f64
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

/// What pairs are trained on without a reference: `mean(L) + w · NLL`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFreeObjective {
    /// How much a difference in reward counts.
    pub beta: Positive,
    /// The loss of a pair.
    pub loss: ReferenceFreeLoss,
    /// What a log-probability says of the reward; itself unless given.
    #[serde(default)]
    pub reward: ImplicitReward,
    /// The likelihood that is learnt beside; none unless given. (TRL's `cpo_alpha` is 1 even for SimPO.)
    #[serde(default)]
    pub likelihood: Option<Likelihood>,
}

/// A likelihood that is learnt beside a loss of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// What its negative logarithm is multiplied by.
    pub weight: NonNegative,
    /// Of which text.
    #[serde(default)]
    pub of: LikelihoodOf,
    /// Over what it is averaged.
    #[serde(default)]
    pub mean: LikelihoodMean,
}

/// The text whose likelihood is learnt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodOf {
    /// The chosen completion: CPO, and ORPO as in LLaMA-Factory.
    #[default]
    Completion,
    /// The prompt and the chosen completion: ORPO as in TRL.
    PromptAndCompletion,
    /// A third completion, better than both: TPO.
    Gold,
}

/// Log-likelihoods of the texts that [`LikelihoodOf`] names.
#[derive(Debug, Clone)]
pub struct Likelihoods {
    /// Their log-probabilities, summed. `[pairs]`
    pub log_probs: Tensor<1>,
    /// Their tokens. `[pairs]`
    pub tokens: Tensor<1>,
}

impl ReferenceFreeObjective {
    /// ORPO ([arXiv:2403.07691](https://arxiv.org/abs/2403.07691)) as in TRL: the likelihood of prompt and completion.
    #[must_use]
    pub fn orpo(beta: Positive) -> Self {
        let of = LikelihoodOf::PromptAndCompletion;
        let likelihood = Likelihood { weight: one(), of, mean: LikelihoodMean::default() };
        let loss = ReferenceFreeLoss::Orpo {};
        Self { beta, loss, reward: ImplicitReward::default(), likelihood: Some(likelihood) }
    }

    /// SimPO ([arXiv:2405.14734](https://arxiv.org/abs/2405.14734)) as in the paper: no likelihood beside it.
    #[must_use]
    pub fn simpo(beta: Positive, margin: SimpoMargin) -> Self {
        let loss = ReferenceFreeLoss::Simpo { margin, label_smoothing: ProperFraction::new(0.0) };
        Self { beta, loss, reward: ImplicitReward::default(), likelihood: None }
    }

    /// TPO ([arXiv:2405.16681](https://arxiv.org/abs/2405.16681)): the likelihood of a third completion, so many times, beside
    /// a loss of pairs; TPO-L is that of [`ReferenceFreeLoss::Simpo`].
    #[must_use]
    pub fn tpo(beta: Positive, loss: ReferenceFreeLoss, weight: NonNegative) -> Self {
        let likelihood = Likelihood { weight, of: LikelihoodOf::Gold, mean: LikelihoodMean::default() };
        Self { beta, loss, reward: ImplicitReward::default(), likelihood: Some(likelihood) }
    }

    /// What `pairs` add to the loss of their step; the shares of a step's batches add up to its loss, whatever the batches.
    ///
    /// `texts` are what [`LikelihoodOf`] names, and not looked at without a [`Likelihood`];
    /// [`StepTotals::likelihood_tokens`] counts their tokens.
    ///
    /// # Shapes
    /// - result: `[1]`
    ///
    /// # Panics
    /// If there is a likelihood and no text.
    #[must_use]
    pub fn share_of_step(
        &self,
        pairs: &ReferenceFreeLogProbs,
        texts: Option<&Likelihoods>,
        totals: StepTotals,
    ) -> Tensor<1> {
        let share = self.loss.per_pair(pairs, self.beta, self.reward).sum() / totals.pairs as f64;
        let Some(likelihood) = self.likelihood else { return share };
        assert!(texts.is_some(), "the objective has a likelihood: give the texts it is of");
        let Some(texts) = texts else { return share };
        let terms = match likelihood.mean {
            LikelihoodMean::Tokens => texts.log_probs.clone().sum() / totals.likelihood_tokens.max(1) as f64,
            LikelihoodMean::Sequences => {
                (texts.log_probs.clone() / at_least_one(&texts.tokens)).sum() / totals.pairs as f64
            }
        };
        share - terms * likelihood.weight.get()
    }
}

fn one() -> NonNegative {
    NonNegative::new(1.0)
}
