//! What pairs are trained on, with a reference policy or without one.

use align_model::number::{NonNegative, Positive};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::loss::{
    ImplicitReward, PairLogProbs, PairObjective, ReferenceFreeLogProbs, ReferenceFreeLoss, SequenceScale,
    StepTotals,
};

/// What is minimised over pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// Losses of log-ratios against a reference policy: DPO and its relatives, MPO, RPO.
    Dpo(PairObjective),
    /// A loss of the policy's log-probabilities alone: ORPO, CPO, `SimPO`.
    ReferenceFree(ReferenceFreeObjective),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Dpo(PairObjective::default())
    }
}

/// `mean(L) + w · NLL(y_c)`, without a reference policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFreeObjective {
    /// The loss of a pair.
    pub loss: ReferenceFreeLoss,
    /// How steep it is. TRL: 0.1, unless given; the authors of `SimPO` use 2 to 10.
    #[serde(default)]
    pub beta: Option<Positive>,
    /// What a log-probability says of a reward.
    #[serde(default)]
    pub reward: ImplicitReward,
    /// The likelihood of the chosen completions that is added. Unless given, what the method's authors add: ORPO that of
    /// prompt and completion, CPO that of the completion, `SimPO` and `SLiC` nothing (where TRL's `CPOTrainer` adds CPO's
    /// unless `cpo_alpha` is 0).
    #[serde(default)]
    pub likelihood: Option<Likelihood>,
}

/// A likelihood that is maximised beside a loss of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likelihood {
    /// What the mean negative log-likelihood is multiplied by.
    pub weight: NonNegative,
    /// Over which tokens the mean is.
    #[serde(default)]
    pub over: LikelihoodSpan,
}

/// Which tokens of a chosen sequence a likelihood is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodSpan {
    /// The completion's.
    #[default]
    Completion,
    /// The prompt's, without its first, and the completion's.
    PromptAndCompletion,
}

/// What a step measures of some pairs. Tensors are `[pairs]`.
#[derive(Debug, Clone)]
pub(crate) struct PairScores {
    /// Sums of log-probabilities, lengths, the reference's sums (0 where there is none).
    pub(crate) log_probs: PairLogProbs,
    /// Log-likelihoods of what the objective's likelihood is of.
    pub(crate) likelihood: Tensor<1>,
    /// Weights of the pairs.
    pub(crate) weights: Option<Tensor<1>>,
}

/// What a group of pairs is averaged over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupTotals {
    pub(crate) step: StepTotals,
    /// Tokens that the objective's likelihood is of.
    pub(crate) likelihood_tokens: usize,
}

impl Objective {
    /// What `scores` add to the loss of their group.
    pub(crate) fn share(&self, scores: &PairScores, totals: GroupTotals) -> Tensor<1> {
        match self {
            Self::Dpo(objective) => {
                objective.share_of_step(&scores.log_probs, scores.weights.as_ref(), totals.step)
            }
            Self::ReferenceFree(objective) => {
                let pairs = ReferenceFreeLogProbs {
                    chosen: scores.log_probs.policy_chosen.clone(),
                    rejected: scores.log_probs.policy_rejected.clone(),
                    chosen_tokens: scores.log_probs.chosen_tokens.clone(),
                    rejected_tokens: scores.log_probs.rejected_tokens.clone(),
                };
                let terms = objective.loss.per_pair(&pairs, self.beta(), objective.reward);
                let share = terms.sum() / totals.step.pairs as f64;
                let weight = objective.likelihood().weight.get();
                if weight > 0.0 {
                    let mean = scores.likelihood.clone().sum() / totals.likelihood_tokens.max(1) as f64;
                    share - mean * weight
                } else {
                    share
                }
            }
        }
    }

    /// Whether it is measured against a reference policy.
    #[must_use]
    pub fn needs_reference(&self) -> bool {
        match self {
            Self::Dpo(objective) => objective.needs_reference(),
            Self::ReferenceFree(_) => false,
        }
    }

    /// Whether a pair's loss depends on the others.
    #[must_use]
    pub fn couples_pairs(&self) -> bool {
        match self {
            Self::Dpo(objective) => objective.couples_pairs(),
            Self::ReferenceFree(_) => false,
        }
    }

    /// The scale of rewards.
    pub(crate) fn beta(&self) -> Positive {
        match self {
            Self::Dpo(objective) => objective.beta,
            Self::ReferenceFree(objective) => objective.beta.unwrap_or(Positive::new(0.1)),
        }
    }

    /// Whether log-probabilities of prompts matter.
    pub(crate) fn reads_prompts(&self) -> bool {
        self.likelihood_span() == LikelihoodSpan::PromptAndCompletion
    }

    pub(crate) fn is_orpo(&self) -> bool {
        matches!(self, Self::ReferenceFree(objective) if objective.loss == ReferenceFreeLoss::Orpo {})
    }

    pub(crate) fn likelihood_span(&self) -> LikelihoodSpan {
        match self {
            Self::Dpo(_) => LikelihoodSpan::Completion,
            Self::ReferenceFree(objective) => objective.likelihood().over,
        }
    }

    /// Whether rewards and logged log-probabilities are sums over completions or means.
    pub(crate) fn scale(&self) -> SequenceScale {
        match self {
            Self::Dpo(_) => SequenceScale::Sum,
            Self::ReferenceFree(objective) => objective.loss.scale(),
        }
    }
}

impl ReferenceFreeObjective {
    /// A loss with what its authors add to it.
    #[must_use]
    pub fn new(loss: ReferenceFreeLoss) -> Self {
        Self { loss, beta: None, reward: ImplicitReward::default(), likelihood: None }
    }

    /// The likelihood that is added.
    #[must_use]
    pub fn likelihood(&self) -> Likelihood {
        let of = |weight, over| Likelihood { weight: NonNegative::new(weight), over };
        self.likelihood.unwrap_or_else(|| match self.loss {
            ReferenceFreeLoss::Orpo {} => of(1.0, LikelihoodSpan::PromptAndCompletion),
            ReferenceFreeLoss::Simpo { .. } | ReferenceFreeLoss::Slic { .. } => {
                of(0.0, LikelihoodSpan::Completion)
            }
            _ => of(1.0, LikelihoodSpan::Completion),
        })
    }
}
