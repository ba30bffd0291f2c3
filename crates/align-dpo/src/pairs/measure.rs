//! What a step over pairs measured, read from the device at once.

use std::ops::Range;

use align_model::{
    logprob::{CompletionLayout, TokenScores, plain},
    preference::PreferenceExample,
    train::Update,
};
use burn::tensor::Tensor;

use crate::{
    loss::{PairLoss, SequenceScale},
    objective::{Objective, PairScores},
    report::{PreferenceReport, by_slice, mean},
};

/// Measurements on the device.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Shares of the step's loss. `[1]` each
    pub(super) losses: Vec<Tensor<1>>,
    /// Of each group β and the usual margin after it, where β follows the margins.
    pub(super) betas: Vec<[f64; 2]>,
    /// Of each pass: what its pairs have, then what its tokens have. `[5·pairs + 3·targets]`
    passes: Vec<Tensor<1>>,
    layouts: Vec<PassLayout>,
}

/// Where a pass's completions lie among its targets.
#[derive(Debug)]
struct PassLayout {
    pairs: usize,
    completions: Vec<Range<usize>>,
    targets: usize,
}

/// Measurements on the host.
pub(super) struct Read {
    pub(super) loss: f64,
    betas: Vec<[f64; 2]>,
    pairs: Vec<Pair>,
    /// Sums over the tokens of all chosen, of all rejected and of all gold completions.
    tokens: [TokenSums; 3],
}

/// What one pair measured, its chosen completion first.
struct Pair {
    policy: [f64; 2],
    reference: [f64; 2],
    lengths: [f64; 2],
    likelihood: f64,
}

#[derive(Default, Clone, Copy)]
struct TokenSums {
    count: f64,
    entropy: f64,
    logits: f64,
    correct: f64,
}

impl Measured {
    /// Keeps what a pass says.
    pub(super) fn add(&mut self, layout: &CompletionLayout, scores: &TokenScores, pairs: &PairScores) {
        let log_probs = &pairs.log_probs;
        let parts = [
            &log_probs.policy_chosen,
            &log_probs.policy_rejected,
            &log_probs.reference_chosen,
            &log_probs.reference_rejected,
            &pairs.likelihoods.log_probs,
            &scores.entropies,
            &scores.mean_logits,
            &scores.correct,
        ];
        self.passes.push(Tensor::cat(parts.map(|part| plain(part.clone())).to_vec(), 0));
        let (completions, targets) = (layout.completions.clone(), layout.targets.len());
        let [pairs] = log_probs.policy_chosen.dims();
        self.layouts.push(PassLayout { pairs, completions, targets });
    }

    /// Reads everything from the device.
    pub(super) fn read(self) -> Read {
        let losses = self.losses.len();
        let all = self.losses.into_iter().map(plain).chain(self.passes).collect();
        let values: Vec<f64> = Tensor::cat(all, 0).into_data().iter::<f64>().collect();
        let (of_losses, mut rest) = values.split_at(losses);
        let loss = of_losses.iter().sum();
        let tokens = [TokenSums::default(); 3];
        let mut read = Read { loss, betas: self.betas, pairs: Vec::new(), tokens };
        for PassLayout { pairs: count, completions, targets } in self.layouts {
            let of_pair = completions.len() / count;
            let (of_pairs, of_tokens) = rest.split_at(5 * count);
            read.pairs.extend((0..count).map(|pair| {
                let at = |field: usize| of_pairs[field * count + pair];
                Pair {
                    policy: [at(0), at(1)],
                    reference: [at(2), at(3)],
                    lengths: [0, 1].map(|side| completions[of_pair * pair + side].len() as f64),
                    likelihood: at(4),
                }
            }));
            for (row, range) in completions.iter().enumerate() {
                let sum = |field: usize| of_tokens[field * targets..][range.clone()].iter().sum::<f64>();
                let sums = &mut read.tokens[row % of_pair];
                sums.count += range.len() as f64;
                sums.entropy += sum(0);
                sums.logits += sum(1);
                sums.correct += sum(2);
            }
            rest = &of_tokens[3 * targets..];
        }
        read
    }
}

impl Read {
    pub(super) fn report(
        &self,
        objective: &Objective,
        batch: &[PreferenceExample],
        num_tokens: u64,
        update: Option<Update>,
    ) -> PreferenceReport {
        let beta = objective.beta().get();
        let reward = |pair: &Pair, side: usize| beta * pair.implicit(objective, side);
        let logp = |pair: &Pair, side: usize| pair.scaled(objective, side);
        let margin = |pair: &Pair| reward(pair, 0) - reward(pair, 1);
        let is_right = |pair: &Pair| f64::from(u8::from(reward(pair, 0) > reward(pair, 1)));
        let over = |value: &dyn Fn(&Pair) -> f64| mean(self.pairs.iter().map(value)).unwrap_or_default();
        let [chosen, rejected, gold] = self.tokens;
        let tokens = chosen.count + rejected.count + gold.count;
        let mut metrics = vec![("loss", self.loss)];
        if let Some(Update { learning_rate, grad_norm }) = update {
            metrics.extend([("grad_norm", grad_norm), ("learning_rate", learning_rate)]);
        }
        metrics.extend([
            ("entropy", (chosen.entropy + rejected.entropy + gold.entropy) / tokens),
            ("mean_token_accuracy", chosen.correct / chosen.count),
            ("num_tokens", num_tokens as f64),
            ("rewards/chosen", over(&|pair| reward(pair, 0))),
            ("rewards/rejected", over(&|pair| reward(pair, 1))),
            ("rewards/accuracies", over(&is_right)),
            ("rewards/margins", over(&margin)),
            ("logps/chosen", over(&|pair| logp(pair, 0))),
            ("logps/rejected", over(&|pair| logp(pair, 1))),
            ("logits/chosen", chosen.logits / chosen.count),
            ("logits/rejected", rejected.logits / rejected.count),
        ]);
        metrics.extend(self.of_likelihood(objective, batch));
        if let Some(&[_, usual_margin]) = self.betas.last() {
            metrics.extend(mean(self.betas.iter().map(|&[beta, _]| beta)).map(|beta| ("beta", beta)));
            metrics.push(("usual_margin", usual_margin));
        }
        if objective.is_orpo() {
            let odds = |pair: &Pair| log_odds(logp(pair, 0)) - log_odds(logp(pair, 1));
            metrics.push(("log_odds_ratio", over(&|pair| log_sigmoid(odds(pair)))));
            metrics.push(("log_odds_chosen", over(&odds)));
        }
        let identical = batch.iter().filter(|pair| pair.chosen == pair.rejected).count();
        if identical > 0 {
            metrics.push(("identical_pairs", identical as f64));
        }
        let of_slices = |name, value: &dyn Fn(&Pair) -> f64| {
            let slices = batch.iter().map(|pair| &pair.slice);
            by_slice(name, slices.zip(self.pairs.iter().map(value)))
        };
        let mut named = of_slices("rewards/accuracies", &is_right);
        named.extend(of_slices("rewards/margins", &margin));
        PreferenceReport::new(metrics, named)
    }

    /// The mean negative log-likelihood, where the objective has one.
    fn of_likelihood(
        &self,
        objective: &Objective,
        batch: &[PreferenceExample],
    ) -> Option<(&'static str, f64)> {
        let is_minimised = match objective {
            Objective::Dpo(pairs) => {
                pairs.losses.iter().any(|weighted| matches!(weighted.loss, PairLoss::Sft { .. }))
            }
            Objective::ReferenceFree(free) => free.likelihood.is_some_and(|it| it.weight.get() > 0.0),
        };
        let of_prompts: usize = batch.iter().map(|pair| pair.prompt.len().saturating_sub(1)).sum();
        let of_prompts = if objective.reads_prompts() { of_prompts as f64 } else { 0.0 };
        let sum: f64 = self.pairs.iter().map(|pair| pair.likelihood).sum();
        let [chosen, _, gold] = self.tokens;
        let tokens = if objective.reads_gold() { gold.count } else { chosen.count + of_prompts };
        is_minimised.then(|| ("nll_loss", -sum / tokens))
    }
}

impl Pair {
    /// The log-probability that the objective is about.
    fn scaled(&self, objective: &Objective, side: usize) -> f64 {
        match objective.scale() {
            SequenceScale::Sum => self.policy[side],
            SequenceScale::Mean => self.policy[side] / self.lengths[side],
        }
    }

    /// The reward that the objective implies, before β.
    fn implicit(&self, objective: &Objective, side: usize) -> f64 {
        if objective.needs_reference() {
            return self.policy[side] - self.reference[side];
        }
        let scaled = self.scaled(objective, side);
        match objective {
            Objective::Dpo(_) => scaled,
            Objective::ReferenceFree(objective) => objective.reward.value(scaled),
        }
    }
}

/// `log(p / (1 − p))` of `log p`.
fn log_odds(log_p: f64) -> f64 {
    log_p - (-log_p.exp_m1()).ln()
}

fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}
