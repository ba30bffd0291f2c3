//! What a forward pass says of its pairs.

use align_model::{
    causal_lm::CausalLm,
    logprob::{TokenLogProbs, TokenScores, like, vector},
};
use burn::tensor::Tensor;

use super::{DpoTrainer, Part};
use crate::{
    loss::{Desensitized, LengthDesensitization, Likelihoods, PairLogProbs, policy_weights},
    objective::PairScores,
};

/// The place of a gold completion among those of its pair.
const GOLD: usize = 2;

impl<M: CausalLm> DpoTrainer<M> {
    /// What a pass says of its pairs.
    pub(super) fn pair_scores(&self, part: &Part<'_>, scores: &TokenScores) -> PairScores {
        let settings = &self.settings;
        let layout = &part.layout;
        let values = &scores.log_probs.values;
        let device = values.device();
        let lengths = layout.lengths();
        let of_pair = lengths.len() / part.pairs.len();
        let sides = |both| sides(both, of_pair);
        let desensitized = |row: usize, token: usize| match settings.length_desensitization {
            // The completions of a pair stand next to each other.
            Some(LengthDesensitization { alpha, .. }) if token >= lengths[row ^ 1] => alpha.get() as f32,
            _ => 1.0,
        };
        let of_reference = |row: usize, token: usize| match settings.length_desensitization {
            Some(LengthDesensitization { of: Desensitized::PolicyAndReference, .. }) => {
                desensitized(row, token)
            }
            _ => 1.0,
        };
        let [policy_chosen, policy_rejected] = sides(layout.sums(values, desensitized));
        let [reference_chosen, reference_rejected] = match &part.reference {
            Some(reference) => sides(layout.sums(&like(reference.clone(), values), of_reference)),
            None => [policy_chosen.zeros_like(), policy_chosen.zeros_like()],
        };
        let tokens = |side: usize| {
            vector(lengths.iter().skip(side).step_by(of_pair).map(|&length| length as f32), &device)
        };
        let unweighted = || {
            let [chosen, _] = sides(layout.sums(values, |_, _| 1.0));
            chosen
        };
        let unweighted_chosen = settings.length_desensitization.map(|_| unweighted());
        let likelihoods = if settings.objective.reads_prompts() {
            let lengths = layout.lengths_of_whole().into_iter().map(|length| length as f32);
            Likelihoods { log_probs: layout.sums_of_whole(values), tokens: vector(lengths, &device) }
        } else if settings.objective.reads_gold() {
            let log_probs = side(layout.sums(values, |_, _| 1.0), of_pair, GOLD);
            Likelihoods { log_probs, tokens: tokens(GOLD) }
        } else {
            let log_probs = unweighted_chosen.clone().unwrap_or_else(|| policy_chosen.clone());
            Likelihoods { log_probs, tokens: tokens(0) }
        };
        let weights = scores.collisions.as_ref().map(|collisions| {
            let log_probs = TokenLogProbs { values: values.clone(), counts: lengths.clone() };
            let [chosen, rejected] = sides(policy_weights(&log_probs, like(collisions.clone(), values)));
            chosen * rejected
        });
        let log_probs = PairLogProbs {
            policy_chosen,
            policy_rejected,
            reference_chosen,
            reference_rejected,
            chosen_tokens: tokens(0),
            rejected_tokens: tokens(1),
            unweighted_chosen,
        };
        PairScores { log_probs, likelihoods, weights }
    }
}

/// What stands by turns for the completions of each pair, `[of_pair·pairs]`, as two: of the chosen and of the rejected
/// ones. `[pairs]` each
fn sides(all: Tensor<1>, of_pair: usize) -> [Tensor<1>; 2] {
    [0, 1].map(|which| side(all.clone(), of_pair, which))
}

/// Those of one of the completions of each pair. `[pairs]`
fn side(all: Tensor<1>, of_pair: usize, which: usize) -> Tensor<1> {
    let pairs = all.dims()[0] / of_pair;
    all.reshape([pairs, of_pair]).narrow(1, which, 1).squeeze_dim(1)
}
