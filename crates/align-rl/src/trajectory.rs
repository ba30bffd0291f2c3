//! What a policy wrote, token by token.

use align_model::{
    logprob::{Continuation, Prompted, ScoringDistribution, Support},
    number::Positive,
};
use align_reward::rollout::FinishReason;
use serde::{Deserialize, Serialize};

/// A prompt and everything that followed it: the tokens that the policy sampled, its *actions*, and what an environment
/// said in between.
///
/// Tokens are only ever appended: what was sampled is what is learnt from, never tokenised a second time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trajectory {
    /// Trajectories of one prompt share this number.
    pub group: u64,
    /// What was asked.
    pub prompt: Vec<u32>,
    /// What followed.
    pub tokens: Vec<u32>,
    /// Which of those tokens the policy sampled; as long as `tokens`.
    pub is_action: Vec<bool>,
    /// The log-probability of each action under the distribution that it was drawn from, temperature and filters
    /// included. `[actions]`
    pub sampling_log_probs: Vec<f32>,
    /// The tokens that could have been drawn in place of each action; `None` where filters removed none. `[actions]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports: Option<Vec<Support>>,
    /// Why it ended.
    pub finish: FinishReason,
}

impl Trajectory {
    /// How many tokens the policy sampled.
    #[must_use]
    pub fn actions(&self) -> usize {
        self.sampling_log_probs.len()
    }

    /// Whether it ended for want of room.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.finish != FinishReason::Stop
    }

    /// What follows the prompt, with its actions as targets.
    #[must_use]
    pub fn continuation(&self) -> Continuation<'_> {
        Continuation { tokens: &self.tokens, is_target: Some(&self.is_action) }
    }
}

/// Trajectories of one prompt after another as what a layout is made of: neighbours of one group share their prompt.
///
/// Groups may be cut, but trajectories keep their order.
#[must_use]
pub fn prompted<'a>(trajectories: impl IntoIterator<Item = &'a Trajectory>) -> Vec<Prompted<'a>> {
    let mut items: Vec<(u64, Prompted<'a>)> = Vec::new();
    for trajectory in trajectories {
        match items.last_mut() {
            Some((group, item)) if *group == trajectory.group && item.prompt == trajectory.prompt => {
                item.completions.push(trajectory.continuation());
            }
            _ => {
                let completions = vec![trajectory.continuation()];
                items.push((trajectory.group, Prompted { prompt: &trajectory.prompt, completions }));
            }
        }
    }
    items.into_iter().map(|(_, item)| item).collect()
}

/// The distribution that the actions of trajectories were drawn from: what to score them
/// [under](align_model::logprob::LogProbPass::under), in a pass over their layout whose targets are the actions.
///
/// `temperature` is that of the sampling.
#[must_use]
pub fn sampling_distribution<'a>(
    trajectories: impl IntoIterator<Item = &'a Trajectory>,
    temperature: Positive,
) -> ScoringDistribution {
    let (mut all, mut some_are_restricted) = (Vec::new(), false);
    for trajectory in trajectories {
        match &trajectory.supports {
            Some(supports) => {
                some_are_restricted = true;
                all.extend_from_slice(supports);
            }
            None => all.resize(all.len() + trajectory.actions(), Support::All),
        }
    }
    ScoringDistribution { temperature, supports: some_are_restricted.then_some(all) }
}
