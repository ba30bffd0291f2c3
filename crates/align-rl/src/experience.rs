//! What is learnt from: trajectories, and how much better than expected each of their actions was.

use align_model::{
    causal_lm::CausalLm,
    logprob::{CompletionLayout, Prompts, ScoringDistribution, plain, token_log_probs_under, vector},
    number::Positive,
};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    error::RlError,
    trajectory::{Trajectory, prompted, sampling_distribution},
};

/// A trajectory and what is to be learnt from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experience {
    /// What happened.
    pub trajectory: Trajectory,
    /// How much better than expected each action was. `[actions]`
    pub advantages: Vec<f32>,
    /// The log-probability of each action under the policy that ratios are measured against; `None` for the policy as it
    /// is when it learns, so that every ratio is 1. `[actions]`
    pub old_log_probs: Option<Vec<f32>>,
    /// Whether it is learnt from. One that is not still counts as a sequence where a loss is a mean over sequences.
    pub is_kept: bool,
}

impl Experience {
    /// A trajectory whose actions all have the same advantage.
    #[must_use]
    pub fn new(trajectory: Trajectory, advantage: f64) -> Self {
        let advantages = vec![advantage as f32; trajectory.actions()];
        Self { trajectory, advantages, old_log_probs: None, is_kept: true }
    }

    /// How many tokens are learnt from.
    #[must_use]
    pub fn targets(&self) -> usize {
        if self.is_kept { self.trajectory.actions() } else { 0 }
    }
}

/// Refuses what cannot be learnt from. `limit`: the model's context.
pub(crate) fn check<'a>(
    experience: impl IntoIterator<Item = &'a Experience>,
    limit: usize,
) -> Result<(), RlError> {
    let (mut trajectories, mut targets) = (0, 0);
    for (index, one) in experience.into_iter().enumerate() {
        (trajectories, targets) = (trajectories + 1, targets + one.targets());
        let trajectory = &one.trajectory;
        if trajectory.prompt.is_empty() {
            return Err(RlError::EmptyPrompt { index });
        }
        let tokens = trajectory.prompt.len() + trajectory.tokens.len();
        if tokens > limit {
            return Err(RlError::TooLong { index, tokens, limit });
        }
        let actions = trajectory.is_action.iter().filter(|&&is_action| is_action).count();
        let lengths = [
            ("sampling log-probabilities", Some(trajectory.sampling_log_probs.len())),
            ("advantages", Some(one.advantages.len())),
            ("old log-probabilities", one.old_log_probs.as_ref().map(Vec::len)),
            ("supports", trajectory.supports.as_ref().map(Vec::len)),
        ];
        for (what, found) in lengths {
            if let Some(found) = found.filter(|&found| found != actions) {
                return Err(RlError::Misaligned { index, what, actions, found });
            }
        }
        if trajectory.is_action.len() != trajectory.tokens.len() {
            let (actions, found) = (trajectory.tokens.len(), trajectory.is_action.len());
            return Err(RlError::Misaligned { index, what: "marks of what is sampled", actions, found });
        }
        let is_broken = |values: &[f32]| values.iter().any(|value| !value.is_finite());
        if is_broken(&one.advantages) {
            return Err(RlError::NotANumber { index, what: "advantages" });
        }
        if one.old_log_probs.as_deref().is_some_and(is_broken) {
            return Err(RlError::NotANumber { index, what: "old log-probabilities" });
        }
    }
    match (trajectories, targets) {
        (0, _) => Err(RlError::EmptyBatch),
        (_, 0) => Err(RlError::NothingToLearn { trajectories }),
        _ => Ok(()),
    }
}

/// Some experience laid out for one pass of a model. Targets are the actions, trajectory after trajectory.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) experience: Vec<&'a Experience>,
    pub(crate) layout: CompletionLayout,
    pub(crate) distribution: ScoringDistribution,
}

impl<'a> Part<'a> {
    /// Parts of at most `size` trajectories, leaving out those with nothing to learn from.
    pub(crate) fn all<M: CausalLm>(
        experience: &'a [Experience],
        size: usize,
        temperature: Positive,
        model: &M,
    ) -> Vec<Self> {
        let kept: Vec<&Experience> = experience.iter().filter(|one| one.targets() > 0).collect();
        kept.chunks(size).map(|some| Self::new(some, temperature, model)).collect()
    }

    /// Lays these out, whether or not they are learnt from.
    pub(crate) fn new<M: CausalLm>(experience: &[&'a Experience], temperature: Positive, model: &M) -> Self {
        let items = prompted(experience.iter().map(|one| &one.trajectory));
        let layout =
            CompletionLayout::new(&items, Prompts { are_shared: model.shares_prompts(), are_read: false });
        let distribution = sampling_distribution(experience.iter().map(|one| &one.trajectory), temperature);
        Self { experience: experience.to_vec(), layout, distribution }
    }

    /// What `model` says of the actions, without gradients. `[targets]`
    pub(crate) fn log_probs<M: CausalLm>(&self, model: &M) -> Tensor<1> {
        let CompletionLayout { batch, targets, .. } = &self.layout;
        plain(token_log_probs_under(model, batch, targets, self.distribution.clone()).values)
    }

    /// Numbers of each action. `[targets]`
    pub(crate) fn vector<'b>(
        &'b self,
        values: impl Fn(&'b Experience) -> &'b [f32],
        device: &Device,
    ) -> Tensor<1> {
        vector(self.experience.iter().flat_map(|one| values(one).iter().copied()), device)
    }
}

/// What `model` says of every action now, in the order of `experience`. One read of the device. `[actions]` each
pub(crate) fn read_log_probs<M: CausalLm>(
    experience: &[Experience],
    size: usize,
    temperature: Positive,
    model: &M,
) -> Vec<Vec<f32>> {
    let parts = Part::all(experience, size, temperature, model);
    if parts.is_empty() {
        return vec![Vec::new(); experience.len()];
    }
    let all = Tensor::cat(parts.iter().map(|part| part.log_probs(model)).collect(), 0);
    split(experience, all.into_data().iter::<f32>())
}

/// Numbers of all targets as those of each trajectory; none for one that is not learnt from.
pub(crate) fn split<T>(experience: &[Experience], values: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let mut values = values.into_iter();
    experience.iter().map(|one| values.by_ref().take(one.targets()).collect()).collect()
}
