//! Sampled completions with what they were scored, and what is logged of them.

use std::{collections::HashSet, ops::Range};

use align_model::{causal_lm::IncrementalLm, tokenizer::Tokenizer};
use align_reward::{rollout::Rollout, score::Score};

use super::{RewardScores, Rewards, mean_and_deviation};
use crate::{
    error::RlError,
    rollout::{PromptExample, RolloutConfig, RolloutRow, Sampled, sample_rollouts},
};

/// How many tokens make one of the runs whose repetition is measured, as in TRL's penalty for repetition.
const NGRAM: usize = 3;
/// Rewards that are no further apart than this are equal.
const SAME: f64 = 1e-8;

/// Groups of completions that were sampled and scored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoredRollouts {
    /// The completions, group after group.
    pub samples: Vec<Sampled>,
    /// What they were scored.
    pub scores: RewardScores,
    /// Rewards of single actions, such as those of a process, in addition to the scores; either none, or one list for
    /// every sample, with one number for each of its actions.
    pub action_rewards: Vec<Vec<f64>>,
    /// Prompts without completions, because they were empty or too long.
    pub left_out_prompts: usize,
    /// Prompts of which only the end was read.
    pub cut_prompts: usize,
}

impl ScoredRollouts {
    /// Samples groups of completions and scores them. Groups are numbered from `first` on.
    ///
    /// # Errors
    /// If completions cannot be sampled, or a reward fails.
    pub(crate) fn sample<M: IncrementalLm>(
        policy: &M,
        rewards: &mut Rewards,
        prompts: &[PromptExample],
        (config, seed, first): (&RolloutConfig, u64, u64),
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self, RlError> {
        let sampled = sample_rollouts(policy, prompts, config, seed, tokenizer)?.numbered_from(first);
        let rollouts: Vec<Rollout> = sampled.samples.iter().map(|sample| sample.rollout.clone()).collect();
        let scores = rewards.score(&rollouts)?;
        let action_rewards = rewards.score_actions(&sampled.samples)?;
        Ok(Self {
            samples: sampled.samples,
            scores,
            action_rewards,
            left_out_prompts: sampled.left_out.len(),
            cut_prompts: sampled.cut_prompts,
        })
    }

    /// Adds others behind these.
    pub(crate) fn append(&mut self, others: Self) {
        self.samples.extend(others.samples);
        self.scores.append(others.scores);
        self.action_rewards.extend(others.action_rewards);
        self.left_out_prompts += others.left_out_prompts;
        self.cut_prompts += others.cut_prompts;
    }

    /// Where each group's completions stand.
    #[must_use]
    pub fn groups(&self) -> Vec<Range<usize>> {
        let same = |a: &Sampled, b: &Sampled| a.trajectory.group == b.trajectory.group;
        let mut end = 0;
        let next = |group: &[Sampled]| {
            end += group.len();
            end - group.len()..end
        };
        self.samples.chunk_by(same).map(next).collect()
    }

    /// Whether some completions of a group were scored better than others.
    #[must_use]
    pub fn has_signal(&self, group: Range<usize>) -> bool {
        let differ = |scores: &[Score]| {
            let values = scores.iter().filter_map(Score::value);
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
            high - low > SAME
        };
        let RewardScores { parts, totals, .. } = &self.scores;
        let of_actions = self.action_rewards.get(group.clone()).unwrap_or_default();
        let are_rewarded = of_actions.iter().flatten().any(|&reward| reward != 0.0);
        are_rewarded
            || differ(&totals[group.clone()])
            || parts.iter().any(|part| differ(&part.scores[group.clone()]))
    }

    /// Tokens of all prompts and completions; a shared prompt counts for each completion.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        let tokens = |sample: &Sampled| sample.trajectory.prompt.len() + sample.trajectory.tokens.len();
        self.samples.iter().map(|sample| tokens(sample) as u64).sum()
    }

    /// What is logged of them, under TRL's names; `completions/repetition` is the mean share of runs of three tokens that
    /// occurred before in their completion.
    #[must_use]
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = self.of_lengths();
        metrics.extend(self.of_rewards());
        let count = self.samples.len().max(1) as f64;
        let repetition = self.samples.iter().map(|sample| repetition(&sample.trajectory.tokens)).sum::<f64>();
        let empty = self.samples.iter().filter(|sample| sample.rollout.completion.trim().is_empty()).count();
        metrics.extend([
            ("completions/repetition", repetition / count),
            ("completions/empty", empty as f64 / count),
        ]);
        if self.left_out_prompts > 0 {
            metrics.push(("prompts/left_out", self.left_out_prompts as f64));
        }
        if self.cut_prompts > 0 {
            metrics.push(("prompts/cut", self.cut_prompts as f64));
        }
        metrics
    }

    fn of_lengths(&self) -> Vec<(&'static str, f64)> {
        let length = |sample: &Sampled| sample.trajectory.actions() as f64;
        let all: Vec<f64> = self.samples.iter().map(length).collect();
        let ended = self.samples.iter().filter(|sample| !sample.trajectory.is_truncated());
        let ended: Vec<f64> = ended.map(length).collect();
        let ([mean, min, max], of_ended) = (spread(&all), spread(&ended));
        vec![
            ("completions/mean_length", mean),
            ("completions/min_length", min),
            ("completions/max_length", max),
            ("completions/clipped_ratio", 1.0 - ended.len() as f64 / all.len().max(1) as f64),
            ("completions/mean_terminated_length", of_ended[0]),
            ("completions/min_terminated_length", of_ended[1]),
            ("completions/max_terminated_length", of_ended[2]),
        ]
    }

    fn of_rewards(&self) -> Vec<(&'static str, f64)> {
        let values: Vec<f64> = self.scores.values().into_iter().flatten().collect();
        let groups = self.groups();
        let silent = groups.iter().filter(|group| !self.has_signal((*group).clone())).count();
        let unscored = self.scores.unscored() as f64 / self.samples.len().max(1) as f64;
        let not_finite: usize = self.scores.parts.iter().map(|part| part.not_finite).sum();
        let mut metrics = Vec::new();
        if let Some((mean, deviation)) = mean_and_deviation(&values) {
            metrics.extend([("reward", mean), ("reward_std", deviation)]);
        }
        metrics.extend([
            ("frac_reward_zero_std", silent as f64 / groups.len().max(1) as f64),
            ("rewards/unscored", unscored),
        ]);
        if not_finite > 0 {
            metrics.push(("rewards/not_finite", not_finite as f64));
        }
        metrics
    }

    /// Rows that a person can read. `advantages`: one a completion, `None` where it is not learnt from.
    #[must_use]
    pub fn rows(&self, step: u64, advantages: &[Option<f64>]) -> Vec<RolloutRow> {
        let row = |(index, (sample, advantage)): (usize, (&Sampled, &Option<f64>))| {
            let row = RolloutRow::new(step, &sample.rollout);
            let parts = self.scores.parts.iter();
            let mut row = parts.fold(row, |row, part| row.with_score(&part.name, &part.scores[index]));
            row.reward = self.scores.totals[index].value();
            row.advantage = *advantage;
            row
        };
        self.samples.iter().zip(advantages).enumerate().map(row).collect()
    }
}

/// Mean, lowest and highest; 0 of none, as TRL has it.
fn spread(values: &[f64]) -> [f64; 3] {
    if values.is_empty() {
        return [0.0; 3];
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [values.iter().sum::<f64>() / values.len() as f64, low, high]
}

/// The share of runs of tokens that occurred before.
fn repetition(tokens: &[u32]) -> f64 {
    let runs = (tokens.len() + 1).saturating_sub(NGRAM);
    let unique = tokens.windows(NGRAM).collect::<HashSet<_>>().len();
    (runs - unique) as f64 / runs.max(1) as f64
}
