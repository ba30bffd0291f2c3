//! Sampling groups, scoring them, and finding out which completions were better than others.

use std::{collections::BTreeMap, num::NonZeroUsize};

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, IncrementalLm},
    generate::Decoding,
};

use super::{DynamicSampling, GroupTrainer, TruncatedCompletions};
use crate::{
    error::RlError,
    experience::Experience,
    loss::ScoredGroups,
    report::RlReport,
    rollout::{PromptExample, RolloutConfig},
    scoring::ScoredRollouts,
};

/// What a step learns from, and what it was chosen from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Round {
    /// One for each completion that is learnt from, group after group.
    pub experience: Vec<Experience>,
    /// All completions that were sampled.
    pub scored: ScoredRollouts,
    /// The advantage of each of them; `None` where it is not learnt from.
    pub advantages: Vec<Option<f64>>,
    /// Groups that are not learnt from, because their rewards were all equal.
    pub dropped_groups: usize,
    /// The mean divergence from the reference a token, where it is part of the reward.
    reward_kl: Option<f64>,
}

impl Round {
    /// Whether anything can be learnt: some completion has a score, and a token that counts.
    #[must_use]
    pub fn has_signal(&self) -> bool {
        let are_scored = self.scored.scores.unscored() < self.scored.samples.len();
        are_scored && self.experience.iter().any(|one| one.targets() > 0)
    }

    /// What is logged of it.
    pub(super) fn report(&self, step: u64, tokens_seen: u64) -> RlReport {
        let mut metrics = vec![("num_tokens", tokens_seen as f64)];
        metrics.extend(self.scored.metrics());
        if self.dropped_groups > 0 {
            metrics.push(("groups/dropped", self.dropped_groups as f64));
        }
        let masked = self.experience.iter().filter(|one| !one.is_kept).count();
        if masked > 0 {
            metrics.push(("completions/masked", masked as f64));
        }
        metrics.extend(self.reward_kl.map(|kl| ("kl", kl)));
        let (named, rollouts) =
            (self.scored.scores.named_metrics(), self.scored.rows(step, &self.advantages));
        RlReport { metrics, named, rollouts, alarms: Vec::new() }
    }
}

impl<M: IncrementalLm> GroupTrainer<M> {
    /// Samples a group of completions of each prompt, scores them, and compares them with each other. The same step samples
    /// the same completions.
    ///
    /// # Errors
    /// If completions cannot be sampled, or a reward fails.
    pub fn sample(&mut self, prompts: &[PromptExample]) -> Result<Round, RlError> {
        if prompts.is_empty() {
            return Err(RlError::EmptyBatch);
        }
        let replaces = matches!(self.config.dynamic_sampling, DynamicSampling::Replace { .. });
        let wanted = if replaces { self.config.batch_size.get().min(prompts.len()) } else { prompts.len() };
        let mut scored = ScoredRollouts::default();
        let (mut start, mut useful) = (0, 0);
        while useful < wanted && start < prompts.len() {
            let some = &prompts[start..(start + wanted - useful).min(prompts.len())];
            let seed = DropoutSeed::of(&[self.config.seed, self.steps, start as u64]).0;
            let rollout = (&self.config.rollout, seed, start as u64);
            let model = self.learner.model();
            let more =
                ScoredRollouts::sample(model, &mut self.rewards, some, rollout, self.tokenizer.as_ref())?;
            let signal = more.groups().into_iter().filter(|group| more.has_signal(group.clone())).count();
            useful += if replaces { signal } else { some.len() };
            start += some.len();
            scored.append(more);
        }
        let greedy = if self.config.algorithm.advantages.needs_greedy_scores() {
            Some(self.greedy_scores(&prompts[..start])?)
        } else {
            None
        };
        Ok(self.compare(scored, greedy.as_ref()))
    }

    /// The score of the greedy answer to each prompt, by the number of its group.
    fn greedy_scores(&mut self, prompts: &[PromptExample]) -> Result<BTreeMap<u64, f64>, RlError> {
        let one = NonZeroUsize::MIN;
        let config =
            RolloutConfig { samples: one, decoding: Decoding::Greedy, ..self.config.rollout.clone() };
        let (model, tokenizer) = (self.learner.model(), self.tokenizer.as_ref());
        let greedy = ScoredRollouts::sample(model, &mut self.rewards, prompts, (&config, 0, 0), tokenizer)?;
        let scores = greedy.samples.iter().zip(greedy.scores.values());
        // An answer without a score is no baseline: the others are compared with 0.
        Ok(scores.map(|(sample, score)| (sample.trajectory.group, score.unwrap_or(0.0))).collect())
    }
}

impl<M: CausalLm> GroupTrainer<M> {
    /// Finds out which completions were better than others.
    pub(super) fn compare(&self, scored: ScoredRollouts, greedy: Option<&BTreeMap<u64, f64>>) -> Round {
        let drops = self.config.dynamic_sampling != DynamicSampling::Off;
        let groups = scored.groups();
        let (kept, dropped): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| !drops || scored.has_signal(group.clone()));
        let kept: Vec<usize> = kept.into_iter().flatten().collect();
        let masks = self.config.truncated == TruncatedCompletions::Mask;
        let experience = kept.iter().map(|&index| {
            let trajectory = scored.samples[index].trajectory.clone();
            let is_kept = !(masks && trajectory.is_truncated());
            Experience { is_kept, ..Experience::new(trajectory, 0.0) }
        });
        let mut round =
            Round { experience: experience.collect(), dropped_groups: dropped.len(), ..Round::default() };
        let token_rewards = self.token_rewards(&mut round, &scored.action_rewards, &kept);
        let of_greedy = |scores: &BTreeMap<u64, f64>| {
            let of_one = |one: &Experience| scores.get(&one.trajectory.group).copied().unwrap_or(0.0);
            round.experience.iter().map(of_one).collect::<Vec<f64>>()
        };
        let greedy = greedy.map(of_greedy);
        let rewards: Vec<Vec<Option<f64>>> = kept.iter().map(|&index| scored.scores.of(index)).collect();
        let weights: Vec<f64> = scored.scores.parts.iter().map(|part| part.weight).collect();
        let groups: Vec<u64> = round.experience.iter().map(|one| one.trajectory.group).collect();
        let counts: Vec<usize> = round.experience.iter().map(|one| one.trajectory.actions()).collect();
        let found = self.config.algorithm.advantages.advantages(&ScoredGroups {
            rewards: &rewards,
            weights: &weights,
            groups: &groups,
            counts: &counts,
            token_rewards: token_rewards.as_deref(),
            greedy_scores: greedy.as_deref(),
        });
        let mut tokens = found.tokens.into_iter().map(|advantage| advantage as f32);
        for one in &mut round.experience {
            one.advantages = tokens.by_ref().take(one.trajectory.actions()).collect();
        }
        round.advantages = vec![None; scored.samples.len()];
        for (index, advantage) in kept.into_iter().zip(found.sequences) {
            round.advantages[index] = Some(advantage);
        }
        round.scored = scored;
        round
    }

    /// What each token is rewarded with besides its completion's score. `[targets]`
    fn token_rewards(&self, round: &mut Round, of_actions: &[Vec<f64>], kept: &[usize]) -> Option<Vec<f64>> {
        let of_divergence = self.divergence_rewards(round);
        if of_actions.is_empty() {
            return of_divergence;
        }
        let mut rewards: Vec<f64> =
            kept.iter().flat_map(|&index| of_actions[index].iter().copied()).collect();
        if let Some(of_divergence) = of_divergence {
            rewards.iter_mut().zip(of_divergence).for_each(|(reward, divergence)| *reward += divergence);
        }
        Some(rewards)
    }

    /// What the divergence from the reference takes off each token's reward. `[targets]`
    fn divergence_rewards(&self, round: &mut Round) -> Option<Vec<f64>> {
        let (coefficient, reference) = (self.config.algorithm.reward_kl?.get(), self.anchor.model()?);
        let of_policy = self.log_probs_of(self.model(), &round.experience);
        let of_reference = self.log_probs_of(reference, &round.experience);
        let (mut rewards, mut sum, mut count) = (Vec::new(), 0.0, 0);
        for (one, (policy, reference)) in round.experience.iter().zip(of_policy.into_iter().zip(of_reference))
        {
            let differences = policy.iter().zip(&reference).map(|(&a, &b)| f64::from(a) - f64::from(b));
            sum += differences.clone().sum::<f64>();
            count += one.targets();
            rewards.extend(differences.map(|difference| -coefficient * difference));
            // A completion that is not learnt from is not asked about.
            rewards.extend(std::iter::repeat_n(0.0, one.trajectory.actions() - one.targets()));
        }
        round.reward_kl = Some(sum / count.max(1) as f64);
        Some(rewards)
    }
}
