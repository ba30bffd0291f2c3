//! What a step's completions were worth, before anything is learnt from them.

use align_model::causal_lm::{CausalLm, IncrementalLm, PassOptions};
use burn::{module::Module as _, tensor::Tensor};

use super::{
    PpoTrainer, Purpose, RewardKl, ValuedExperience,
    rewards::{Outcome, worth},
};
use crate::{
    Trajectory,
    critic::{ValueLayout, ValuePass, ValuedStates},
    error::RlError,
    experience::{Experience, check, read_log_probs},
    group::check_action_rewards,
    kl::KlEstimator,
    loss::ScorePlacement,
    rollout::PromptExample,
    scoring::ScoredRollouts,
};

/// What a step learns from, and what is logged of it.
#[derive(Debug)]
pub(super) struct Appraisal {
    /// One for each completion that has a score and at least one token.
    pub(super) experience: Vec<ValuedExperience>,
    /// Where each of them stands among the samples.
    pub(super) places: Vec<usize>,
    /// What the divergence in the reward cost each of them.
    pub(super) penalties: Vec<f64>,
    /// The score of each of them as it was paid.
    pub(super) scores: Vec<f64>,
    /// Differences of log-probabilities between policy and reference, of each action; none without a reference.
    pub(super) divergences: Vec<Vec<f64>>,
}

impl Appraisal {
    /// The divergence from the reference, summed over completions: their mean, and that of their tokens.
    pub(super) fn divergences(&self) -> Option<(f64, f64)> {
        let tokens = self.divergences.iter().map(Vec::len).sum::<usize>();
        let sum: f64 = self.divergences.iter().flatten().sum();
        (tokens > 0).then(|| (sum / self.divergences.len() as f64, sum / tokens as f64))
    }

    /// The mean advantage of each sample; `None` for one that is not learnt from.
    pub(super) fn mean_advantages(&self, rollouts: &ScoredRollouts) -> Vec<Option<f64>> {
        let mut all = vec![None; rollouts.samples.len()];
        for (one, &place) in self.experience.iter().zip(&self.places) {
            let advantages = &one.experience.advantages;
            let sum: f64 = advantages.iter().copied().map(f64::from).sum();
            all[place] = Some(sum / advantages.len().max(1) as f64);
        }
        all
    }
}

impl<M: IncrementalLm> PpoTrainer<M> {
    /// Samples completions of prompts and scores them, as a step does.
    ///
    /// # Errors
    /// If there is no prompt, completions cannot be sampled, or a reward fails.
    pub fn sample(&mut self, prompts: &[PromptExample]) -> Result<ScoredRollouts, RlError> {
        if prompts.is_empty() {
            return Err(RlError::EmptyBatch);
        }
        let seed = self.seed(Purpose::Sampling, 0);
        let how = (&self.config.rollout, seed, 0);
        ScoredRollouts::sample(self.policy.model(), &mut self.rewards, prompts, how, self.tokenizer.as_ref())
    }
}

impl<M: CausalLm> PpoTrainer<M> {
    /// What can be learnt from completions that were sampled and scored: what a step makes of them before its first update.
    /// Those without a score, or without a token, are left out.
    ///
    /// # Errors
    /// If none is left, one does not fit the models, or rewards of actions fail.
    pub fn experience(&mut self, rollouts: &ScoredRollouts) -> Result<Vec<ValuedExperience>, RlError> {
        Ok(self.appraise(rollouts)?.experience)
    }

    /// What completions were worth: those without a score, or without a token, are left out.
    ///
    /// # Errors
    /// If none is left, one does not fit the models, or rewards of actions fail.
    pub(super) fn appraise(&mut self, rollouts: &ScoredRollouts) -> Result<Appraisal, RlError> {
        check_action_rewards(rollouts)?;
        let totals = rollouts.scores.values();
        let is_learnt =
            |&place: &usize| totals[place].is_some() && rollouts.samples[place].trajectory.actions() > 0;
        let places: Vec<usize> = (0..totals.len()).filter(is_learnt).collect();
        if places.is_empty() {
            return Err(RlError::NothingScored { rollouts: totals.len() });
        }
        let trajectory = |place: usize| &rollouts.samples[place].trajectory;
        let mut experience: Vec<Experience> =
            places.iter().map(|&place| Experience::new(trajectory(place).clone(), 0.0)).collect();
        check(&experience, self.limit())?;

        let log_probs = self.log_probs(&experience, self.model());
        let reference = self.anchor.model().map(|model| self.log_probs(&experience, model));
        let values = self.values(&experience)?;
        let outcomes: Vec<Outcome<'_>> = places
            .iter()
            .zip(values.iter().enumerate())
            .map(|(&place, (index, values))| Outcome {
                trajectory: trajectory(place),
                score: totals[place].unwrap_or_default(),
                penalties: self
                    .penalties(&log_probs[index], reference.as_ref().map(|all| all[index].as_slice())),
                of_actions: rollouts.action_rewards.get(place).map_or(&[], Vec::as_slice),
                values: values.iter().copied().map(f64::from).collect(),
            })
            .collect();
        let worths = worth(&outcomes, &self.config);
        let divergences = reference.iter().flatten().zip(&log_probs).map(|(reference, policy)| {
            let both = policy.iter().zip(reference);
            both.map(|(&policy, &reference)| f64::from(policy) - f64::from(reference)).collect()
        });
        let appraisal = Appraisal {
            penalties: outcomes.iter().map(|outcome| outcome.penalties.iter().sum()).collect(),
            scores: outcomes.iter().map(|it| self.paid(it.score, it.of_actions, it.trajectory)).collect(),
            divergences: divergences.collect(),
            experience: Vec::new(),
            places: places.clone(),
        };
        let single = |numbers: &[f64]| numbers.iter().map(|&number| number as f32).collect::<Vec<f32>>();
        let together = experience.drain(..).zip(log_probs).zip(worths).zip(values);
        let experience = together.map(|(((mut experience, log_probs), worth), old_values)| {
            experience.advantages = single(&worth.advantages);
            experience.old_log_probs = Some(log_probs);
            ValuedExperience { experience, old_values, returns: single(&worth.returns) }
        });
        Ok(Appraisal { experience: experience.collect(), ..appraisal })
    }

    /// Which states have a value.
    pub(super) fn states(&self) -> ValuedStates {
        match self.config.rewards.placement {
            ScorePlacement::LastAction => ValuedStates::BeforeActions,
            ScorePlacement::AfterLastAction => ValuedStates::BeforeActionsAndAtEnd,
        }
    }

    /// The longest sequence that both models can read.
    pub(super) fn limit(&self) -> usize {
        self.model().max_positions().min(self.critic.max_positions(self.model()))
    }

    fn log_probs(&self, experience: &[Experience], model: &M) -> Vec<Vec<f32>> {
        let size = self.config.micro_batch_size.get();
        read_log_probs(experience, size, self.config.rollout.temperature(), model)
    }

    /// What the critic says of every state now. One read of the device.
    fn values(&self, experience: &[Experience]) -> Result<Vec<Vec<f32>>, RlError> {
        let critic = self.critic().valid();
        let trajectories: Vec<&Trajectory> = experience.iter().map(|one| &one.trajectory).collect();
        let (mut values, mut counts) = (Vec::new(), Vec::new());
        for some in trajectories.chunks(self.config.micro_batch_size.get()) {
            let layout = ValueLayout::new(some, self.states(), critic.backbone.shares_prompts());
            values.push(ValuePass::forward(&critic, &layout, PassOptions::default()).values());
            counts.extend_from_slice(layout.counts());
        }
        let mut values = Tensor::cat(values, 0).into_data().iter::<f32>().collect::<Vec<f32>>().into_iter();
        let of_one = |&count: &usize| values.by_ref().take(count).collect::<Vec<f32>>();
        let values: Vec<Vec<f32>> = counts.iter().map(of_one).collect();
        match values.iter().flatten().find(|value| !value.is_finite()) {
            Some(&value) => Err(RlError::Value { value: f64::from(value) }),
            None => Ok(values),
        }
    }

    /// What the divergence in the reward costs each action.
    fn penalties(&self, policy: &[f32], reference: Option<&[f32]>) -> Vec<f64> {
        match (self.config.reward_kl(), reference) {
            (RewardKl::PerToken { estimator, .. }, Some(reference)) => {
                let both = policy.iter().zip(reference);
                let cost = |(&policy, &reference): (&f32, &f32)| {
                    self.kl.coefficient() * KlEstimator::estimate(estimator, policy.into(), reference.into())
                };
                both.map(cost).collect()
            }
            _ => vec![0.0; policy.len()],
        }
    }

    /// Everything that a completion was paid, without what its divergence cost.
    fn paid(&self, score: f64, of_actions: &[f64], trajectory: &Trajectory) -> f64 {
        self.config.rewards.shaped(score, trajectory) + of_actions.iter().sum::<f64>()
    }
}
