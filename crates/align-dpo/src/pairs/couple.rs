//! What the passes of a group have to know of each other before any of them is learnt from.

use std::borrow::Cow;

use align_model::{causal_lm::CausalLm, logprob::plain};
use burn::tensor::Tensor;

use super::{DpoTrainer, Part, measure::Measured};
use crate::{
    loss::{Divergence, DynamicBeta, Likelihoods, PairLogProbs, SequenceScale, StepTotals},
    objective::{Objective, PairScores},
    report::mean,
};

/// Gradients of a group's loss with respect to each pair's sums, found before the way back. `[pairs]` each
pub(super) struct GivenGradients {
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    unweighted_chosen: Option<Tensor<1>>,
}

impl<M: CausalLm> DpoTrainer<M> {
    /// What all passes of a group say, without graphs.
    pub(super) fn score(&self, parts: &[Part<'_>]) -> Vec<PairLogProbs> {
        let of_part = |part| {
            let PairLogProbs {
                policy_chosen,
                policy_rejected,
                reference_chosen,
                reference_rejected,
                chosen_tokens,
                rejected_tokens,
                unweighted_chosen,
            } = self.pair_scores(part, &self.pass(part).scores()).log_probs;
            PairLogProbs {
                policy_chosen: policy_chosen.detach(),
                policy_rejected: policy_rejected.detach(),
                reference_chosen: reference_chosen.detach(),
                reference_rejected: reference_rejected.detach(),
                chosen_tokens: chosen_tokens.detach(),
                rejected_tokens: rejected_tokens.detach(),
                unweighted_chosen: unweighted_chosen.map(Tensor::detach),
            }
        };
        parts.iter().map(of_part).collect()
    }
}

/// Gives the objective the β that belongs to the margins of a group, if β follows them.
pub(super) fn follow_margins(
    objective: &mut Cow<'_, Objective>,
    beta: &mut Option<DynamicBeta>,
    scored: &[PairLogProbs],
    measured: &mut Measured,
) {
    let Some(beta) = beta.as_mut().filter(|_| !scored.is_empty()) else { return };
    let margins = |part: &PairLogProbs| plain(part.margins(Divergence::ReverseKl {}, SequenceScale::Sum));
    // One read of the device, however many passes there are.
    let margins = Tensor::cat(scored.iter().map(margins).collect(), 0).into_data();
    let margins: Vec<f64> = margins.iter::<f64>().collect();
    if let Some(mean_margin) = mean(margins) {
        let of_group = beta.next(mean_margin);
        measured.betas.push([of_group.get(), beta.usual_margin]);
        *objective = Cow::Owned(objective.with_beta(of_group));
    }
}

/// The loss of a group that is computed in several passes although its pairs are coupled, and its gradients with respect to
/// what each pass scores.
pub(super) fn couple(
    objective: &Objective,
    scored: &[PairLogProbs],
    totals: StepTotals,
    share: f64,
) -> (Tensor<1>, Vec<GivenGradients>) {
    let all = |field: &dyn Fn(&PairLogProbs) -> Tensor<1>| Tensor::cat(scored.iter().map(field).collect(), 0);
    let leaf = |field: &dyn Fn(&PairLogProbs) -> Tensor<1>| all(field).require_grad();
    let has_weights = scored.iter().any(|part| part.unweighted_chosen.is_some());
    let log_probs = PairLogProbs {
        policy_chosen: leaf(&|part| part.policy_chosen.clone()),
        policy_rejected: leaf(&|part| part.policy_rejected.clone()),
        reference_chosen: all(&|part| part.reference_chosen.clone()),
        reference_rejected: all(&|part| part.reference_rejected.clone()),
        chosen_tokens: all(&|part| part.chosen_tokens.clone()),
        rejected_tokens: all(&|part| part.rejected_tokens.clone()),
        unweighted_chosen: has_weights.then(|| leaf(&|part| part.chosen_log_likelihood())),
    };
    let likelihoods =
        Likelihoods { log_probs: log_probs.chosen_log_likelihood(), tokens: log_probs.chosen_tokens.clone() };
    let leaves = PairScores { log_probs, likelihoods, weights: None };
    let loss = objective.share(&leaves, totals) * share;
    let mut gradients = loss.clone().backward();
    let mut take = |leaf: &Tensor<1>| {
        let found = leaf.grad_remove(&mut gradients);
        found.unwrap_or_else(|| leaf.clone().inner().zeros_like())
    };
    let PairLogProbs { policy_chosen, policy_rejected, unweighted_chosen, .. } = &leaves.log_probs;
    let (chosen, rejected) = (take(policy_chosen), take(policy_rejected));
    let unweighted = unweighted_chosen.as_ref().map(take);
    let mut start = 0;
    let given = scored.iter().map(|part| {
        let [length] = part.policy_chosen.dims();
        start += length;
        let cut = |all: &Tensor<1>| Tensor::from_inner(all.clone().narrow(0, start - length, length));
        GivenGradients {
            chosen: cut(&chosen),
            rejected: cut(&rejected),
            unweighted_chosen: unweighted.as_ref().map(cut),
        }
    });
    let given = given.collect();
    (loss.detach(), given)
}

impl GivenGradients {
    /// A number whose gradient with respect to a pass's scores is the given one.
    pub(super) fn toward(self, log_probs: &PairLogProbs) -> Tensor<1> {
        let mut sum = (log_probs.policy_chosen.clone() * self.chosen).sum()
            + (log_probs.policy_rejected.clone() * self.rejected).sum();
        if let Some(gradient) = self.unweighted_chosen {
            sum = sum + (log_probs.chosen_log_likelihood() * gradient).sum();
        }
        sum
    }
}
