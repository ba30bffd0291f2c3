//! Rewards of single actions, such as the steps of a solution.

mod process;

use std::fmt;

use align_reward::function::{RewardError, guarded};
use serde_json::Value;

use crate::rollout::Sampled;
pub use process::ProcessRewards;

/// The reward of one action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActionReward {
    /// Its place among the trajectory's actions; the first is 0.
    pub action: usize,
    /// What it was worth.
    pub value: f64,
}

/// Rewards single actions: every token, or the last of each step of a solution.
pub trait ActionRewardFn: fmt::Debug {
    /// What it is called in errors.
    fn name(&self) -> &str;

    /// The rewards of each sample's actions; an action that is not named has none.
    ///
    /// # Errors
    /// If nothing can be rewarded.
    fn score(&mut self, samples: &[Sampled]) -> Result<Vec<Vec<ActionReward>>, RewardError>;

    /// Everything that later rewards depend on besides the samples, for a checkpoint; `null` without any.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes over what [`state`](Self::state) returned.
    ///
    /// # Errors
    /// If it is the state of something else.
    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        if state.is_null() {
            Ok(())
        } else {
            Err(RewardError::State { function: self.name().into(), reason: "it has no state".into() })
        }
    }
}

/// Calls an [`ActionRewardFn`] that may be wrong: it may panic, or say too little or what is no number. Gives one number for each
/// action of each sample.
pub(crate) fn reward_actions(
    rewards: &mut dyn ActionRewardFn,
    samples: &[Sampled],
) -> Result<Vec<Vec<f64>>, RewardError> {
    let function = rewards.name().to_owned();
    let scored = guarded(&function, || rewards.score(samples))?;
    if scored.len() != samples.len() {
        return Err(RewardError::WrongCount { function, expected: samples.len(), found: scored.len() });
    }
    for (index, (of_one, sample)) in scored.iter().zip(samples).enumerate() {
        let actions = sample.trajectory.actions();
        if let Some(wrong) = of_one.iter().find(|it| it.action >= actions || !it.value.is_finite()) {
            let ActionReward { action, value } = *wrong;
            let reason =
                format!("it gave action {action} of sample {index}, which has {actions}, the reward {value}");
            return Err(RewardError::Failed { function, reason });
        }
    }
    let sums = samples.iter().zip(scored).map(|(sample, of_one)| {
        let mut sums = vec![0.0; sample.trajectory.actions()];
        for reward in of_one {
            sums[reward.action] += reward.value;
        }
        sums
    });
    Ok(sums.collect())
}
