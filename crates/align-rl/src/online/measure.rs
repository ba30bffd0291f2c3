//! What a step of online preference learning measured, read from the device at once.

use align_model::{
    logprob::{CompletionLayout, plain},
    train::Update,
};
use align_reward::{compose::PartScores, rollout::FinishReason, score::Score};
use burn::tensor::Tensor;

use super::{
    OnlineObjective, Pair,
    feedback::{Duel, Judgement},
};
use crate::{
    report::RlReport,
    rollout::{RolloutRow, Sampled},
    scoring::RewardScores,
};

/// Measurements on the device.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Shares of the step's loss. `[1]` each
    losses: Vec<Tensor<1>>,
    /// Of each pass: sums of its completions under the policy, then under the reference. `[2·completions]`
    passes: Vec<Tensor<1>>,
}

/// Measurements on the host.
pub(super) struct Read {
    pub(super) loss: f64,
    /// `[Σ log π, Σ log π_ref]` of each completion that was learnt from.
    completions: Vec<[f64; 2]>,
}

/// Everything that a step is reported by.
pub(super) struct Tally<'a> {
    pub(super) duels: &'a [Duel],
    pub(super) judgements: &'a [Judgement],
    /// What rewards said of both completions of each duel, where rewards judge.
    pub(super) scores: Option<&'a RewardScores>,
    pub(super) pairs: &'a [Pair<'a>],
    pub(super) left_out_prompts: usize,
    pub(super) num_tokens: u64,
    pub(super) step: u64,
}

type Metrics = Vec<(&'static str, f64)>;

impl Measured {
    /// Keeps what a pass says. `log_probs`, `reference`: `[targets]`
    pub(super) fn add(
        &mut self,
        layout: &CompletionLayout,
        loss: &Tensor<1>,
        log_probs: &Tensor<1>,
        reference: &Tensor<1>,
    ) {
        self.losses.push(plain(loss.clone()));
        let sums = |values: &Tensor<1>| layout.sums(&plain(values.clone()), |_, _| 1.0);
        self.passes.push(Tensor::cat(vec![sums(log_probs), sums(reference)], 0));
    }

    /// Reads everything from the device.
    pub(super) fn read(self) -> Read {
        let (losses, passes) = (self.losses.len(), self.passes);
        let sizes: Vec<usize> = passes.iter().map(|pass| pass.dims()[0]).collect();
        let all = self.losses.into_iter().chain(passes).collect();
        let values: Vec<f64> = Tensor::cat(all, 0).into_data().iter::<f64>().collect();
        let (of_losses, mut rest) = values.split_at(losses);
        let mut completions = Vec::new();
        for size in sizes {
            let (pass, others) = rest.split_at(size);
            let (policy, reference) = pass.split_at(size / 2);
            completions.extend(policy.iter().zip(reference).map(|(&policy, &reference)| [policy, reference]));
            rest = others;
        }
        Read { loss: of_losses.iter().sum(), completions }
    }
}

impl Tally<'_> {
    /// Says it under TRL's names.
    pub(super) fn report(
        &self,
        objective: &OnlineObjective,
        read: Option<&Read>,
        update: Option<Update>,
    ) -> RlReport {
        let mut metrics = Metrics::new();
        if let Some(read) = read {
            metrics.push(("loss", read.loss));
        }
        if let Some(Update { learning_rate, grad_norm }) = update {
            metrics.extend([("grad_norm", grad_norm), ("learning_rate", learning_rate)]);
        }
        metrics.push(("num_tokens", self.num_tokens as f64));
        if let Some(read) = read {
            metrics.extend(self.of_log_probs(objective, read));
        }
        metrics.extend(self.of_scores(objective, read));
        metrics.extend(self.of_completions(objective));
        metrics.extend(self.counts());
        let named = self.scores.map_or_else(Vec::new, RewardScores::named_metrics);
        RlReport { metrics, named, rollouts: self.rows(), ..RlReport::default() }
    }

    fn of_log_probs(&self, objective: &OnlineObjective, Read { completions, .. }: &Read) -> Metrics {
        let beta = objective.beta();
        let kl = mean(completions.iter().map(|[policy, reference]| policy - reference));
        let entropy = -mean(completions.iter().map(|[policy, _]| policy));
        let mut metrics = vec![("objective/entropy", entropy), ("beta", beta)];
        if let OnlineObjective::NashMd { mixture_coefficient, .. } = objective {
            let score = |([policy, _], pair): (&[f64; 2], &Pair<'_>)| (pair.preference - 0.5) * policy;
            let is_ahead = |[policy, reference]: &[f64; 2]| f64::from(u8::from(policy > reference));
            metrics.extend([
                ("loss/kl", kl),
                ("loss/score", mean(completions.iter().zip(self.pairs).map(score))),
                ("rewards/probabilities", mean(self.pairs.iter().map(|pair| pair.preference))),
                ("rewards/margins", kl),
                ("rewards/accuracies", mean(completions.iter().map(is_ahead))),
                ("logps/chosen", -entropy),
                ("logps/rejected", mean(completions.iter().map(|[_, reference]| reference))),
                ("mixture_coef", mixture_coefficient.get()),
            ]);
            return metrics;
        }
        // The winner of each pair, then the loser.
        let sorted: Vec<[[f64; 2]; 2]> = completions
            .chunks(2)
            .zip(self.pairs)
            .map(|(two, pair)| if pair.is_first_better { [two[0], two[1]] } else { [two[1], two[0]] })
            .collect();
        let reward = |[policy, reference]: [f64; 2]| beta * (policy - reference);
        let margin = |pair: &[[f64; 2]; 2]| reward(pair[0]) - reward(pair[1]);
        let over = |value: &dyn Fn(&[[f64; 2]; 2]) -> f64| mean(sorted.iter().map(value));
        metrics.extend([
            ("objective/kl", kl),
            ("rewards/chosen", over(&|pair| reward(pair[0]))),
            ("rewards/rejected", over(&|pair| reward(pair[1]))),
            ("rewards/margins", over(&margin)),
            ("rewards/accuracies", over(&|pair| f64::from(u8::from(margin(pair) > 0.0)))),
            ("logps/chosen", over(&|pair| pair[0][0])),
            ("logps/rejected", over(&|pair| pair[1][0])),
        ]);
        if let OnlineObjective::OnlineDpo { .. } = objective {
            metrics.push(("objective/non_score_reward", -beta * kl));
        }
        if let OnlineObjective::Xpo { alpha, .. } = objective {
            let of_reference = mean(completions.iter().skip(1).step_by(2).map(|[policy, _]| policy));
            metrics.extend([("alpha", alpha.get()), ("loss/xpo", alpha.get() * of_reference)]);
        }
        metrics
    }

    /// What rewards said, where rewards judge; `reward` is the mean over what the policy wrote.
    fn of_scores(&self, objective: &OnlineObjective, read: Option<&Read>) -> Metrics {
        let scores: Vec<[f64; 2]> = self.judgements.iter().filter_map(|judgement| judgement.scores).collect();
        if scores.is_empty() {
            return Metrics::new();
        }
        let of = |side: usize| mean(scores.iter().map(|scores| scores[side]));
        let margin = mean(scores.iter().map(|[a, b]| (a - b).abs()));
        match objective {
            OnlineObjective::OnlineDpo { beta, .. } => {
                let all = mean(scores.iter().flatten());
                let mut metrics =
                    vec![("reward", all), ("objective/scores", all), ("objective/scores_margin", margin)];
                if let Some(Read { completions, .. }) = read {
                    let kl = mean(completions.iter().map(|[policy, reference]| policy - reference));
                    metrics.push(("objective/rlhf_reward", all - beta.get() * kl));
                }
                metrics
            }
            OnlineObjective::NashMd { .. } => {
                vec![("reward", of(0)), ("rewards/chosen", of(0)), ("rewards/rejected", of(1))]
            }
            OnlineObjective::Xpo { .. } => vec![
                ("reward", of(0)),
                ("objective/model_scores", of(0)),
                ("objective/ref_scores", of(1)),
                ("objective/scores_margin", of(0) - of(1)),
            ],
        }
    }

    fn of_completions(&self, objective: &OnlineObjective) -> Metrics {
        let ended = |sampled: &Sampled| f64::from(u8::from(sampled.rollout.finish == FinishReason::Stop));
        let [a, b] =
            [mean(self.duels.iter().map(|d| ended(&d.a))), mean(self.duels.iter().map(|d| ended(&d.b)))];
        let lengths = self.both().map(|sampled| sampled.trajectory.tokens.len() as f64);
        let mut metrics = match objective {
            OnlineObjective::OnlineDpo { .. } => vec![("val/contain_eos_token", f64::midpoint(a, b))],
            OnlineObjective::NashMd { .. } | OnlineObjective::Xpo { .. } => {
                vec![("val/model_contain_eos_token", a), ("val/ref_contain_eos_token", b)]
            }
        };
        metrics.push(("completions/mean_length", mean(lengths)));
        metrics
    }

    /// What was learnt from, and what became of the rest.
    fn counts(&self) -> Metrics {
        let count =
            |what: &dyn Fn(&Judgement) -> bool| self.judgements.iter().filter(|it| what(it)).count() as f64;
        let identical = self.duels.iter().filter(|duel| duel.is_identical()).count();
        vec![
            ("pairs/learnt", self.pairs.len() as f64),
            ("pairs/ties", count(&|judgement| judgement.lead().is_some_and(|lead| lead.abs() <= 0.0))),
            ("pairs/identical", identical as f64),
            ("pairs/unjudged", count(&|judgement| judgement.preference().is_none())),
            ("prompts/left_out", self.left_out_prompts as f64),
        ]
    }

    fn both(&self) -> impl Iterator<Item = &Sampled> {
        self.duels.iter().flat_map(|duel| [&duel.a, &duel.b])
    }

    fn rows(&self) -> Vec<RolloutRow> {
        let of_duel = |(index, (duel, judgement)): (usize, (&Duel, &Judgement))| {
            let row = |sampled: &Sampled, side: usize| {
                let preference = match &judgement.verdict {
                    align_reward::judge::Verdict::Preference(p) => {
                        Score::Value(if side == 0 { *p } else { 1.0 - p })
                    }
                    align_reward::judge::Verdict::Unjudged { reason } => Score::unscored(reason.clone()),
                };
                let row = RolloutRow::new(self.step, &sampled.rollout).with_score("preferred", &preference);
                let parts = self.scores.map_or(&[][..], |scores| &scores.parts);
                let said = |row: RolloutRow, part: &PartScores| {
                    row.with_score(&part.name, &part.scores[2 * index + side])
                };
                let mut row = parts.iter().fold(row, said);
                row.reward = judgement.scores.map(|scores| scores[side]);
                row
            };
            [row(&duel.a, 0), row(&duel.b, 1)]
        };
        self.duels.iter().zip(self.judgements).enumerate().flat_map(of_duel).collect()
    }
}

/// The mean of some numbers; 0 of none.
fn mean<T: std::borrow::Borrow<f64>>(values: impl IntoIterator<Item = T>) -> f64 {
    let add = |(sum, count): (f64, usize), value: T| (sum + value.borrow(), count + 1);
    let (sum, count) = values.into_iter().fold((0.0, 0), add);
    if count == 0 { 0.0 } else { sum / count as f64 }
}
