//! What pairs are trained on, with a reference policy or without one.

use align_model::number::Positive;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::loss::{
    LikelihoodOf, Likelihoods, PairLogProbs, PairObjective, ReferenceFreeLogProbs, ReferenceFreeLoss,
    ReferenceFreeObjective, SequenceScale, StepTotals,
};

/// What is minimised over pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// Losses of log-ratios against a reference policy: DPO and its relatives, MPO, RPO.
    Dpo(PairObjective),
    /// A loss of the policy's log-probabilities alone: ORPO, CPO, `SimPO`, TPO.
    ReferenceFree(ReferenceFreeObjective),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Dpo(PairObjective::default())
    }
}

/// What a step measures of some pairs. Tensors are `[pairs]`.
#[derive(Debug, Clone)]
pub(crate) struct PairScores {
    /// Sums of log-probabilities, lengths, the reference's sums (0 where there is none).
    pub(crate) log_probs: PairLogProbs,
    /// Likelihoods of what the objective's likelihood is of.
    pub(crate) likelihoods: Likelihoods,
    /// Weights of the pairs.
    pub(crate) weights: Option<Tensor<1>>,
}

impl Objective {
    /// What `scores` add to the loss of their group.
    pub(crate) fn share(&self, scores: &PairScores, totals: StepTotals) -> Tensor<1> {
        match self {
            Self::Dpo(objective) => {
                objective.share_of_step(&scores.log_probs, scores.weights.as_ref(), totals)
            }
            Self::ReferenceFree(objective) => {
                let pairs = ReferenceFreeLogProbs {
                    chosen: scores.log_probs.policy_chosen.clone(),
                    rejected: scores.log_probs.policy_rejected.clone(),
                    chosen_tokens: scores.log_probs.chosen_tokens.clone(),
                    rejected_tokens: scores.log_probs.rejected_tokens.clone(),
                };
                objective.share_of_step(&pairs, Some(&scores.likelihoods), totals)
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
            Self::ReferenceFree(objective) => objective.beta,
        }
    }

    /// The same with another β.
    pub(crate) fn with_beta(&self, beta: Positive) -> Self {
        match self {
            Self::Dpo(objective) => Self::Dpo(PairObjective { beta, ..objective.clone() }),
            Self::ReferenceFree(objective) => {
                Self::ReferenceFree(ReferenceFreeObjective { beta, ..*objective })
            }
        }
    }

    /// Whether it is ORPO, which has measurements of its own.
    pub(crate) fn is_orpo(&self) -> bool {
        matches!(self, Self::ReferenceFree(objective) if objective.loss == ReferenceFreeLoss::Orpo {})
    }

    /// Whether log-probabilities of prompts matter.
    pub(crate) fn reads_prompts(&self) -> bool {
        matches!(self, Self::ReferenceFree(objective)
            if objective.likelihood.is_some_and(|it| it.of == LikelihoodOf::PromptAndCompletion))
    }

    /// Whether the likelihood of a third completion is learnt: TPO.
    #[must_use]
    pub fn reads_gold(&self) -> bool {
        matches!(self, Self::ReferenceFree(objective)
            if objective.likelihood.is_some_and(|it| it.of == LikelihoodOf::Gold))
    }

    /// Whether rewards and logged log-probabilities are sums over completions or means.
    pub(crate) fn scale(&self) -> SequenceScale {
        match self {
            Self::Dpo(_) => SequenceScale::Sum,
            Self::ReferenceFree(objective) => objective.loss.scale(),
        }
    }
}
