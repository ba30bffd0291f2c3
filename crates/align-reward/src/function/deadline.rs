//! Rewards that may hang.

use std::{fmt, sync::mpsc, thread, time::Duration};

use serde_json::Value;

use super::{BoxedReward, RewardError, RewardFn, score_rollouts};
use crate::{rollout::Rollout, score::Score};

/// Gives a reward so much time for a batch.
///
/// The reward works in a thread of its own. One that exceeds its time cannot be stopped, only abandoned: the thread,
/// and the reward with it, stay until it ends by itself, and every later call is an error. Commands and endpoints
/// have time limits of their own that leave nothing behind.
pub struct Deadline {
    name: String,
    limit: Duration,
    /// `None` while, and after, it is lost in a thread.
    reward: Option<BoxedReward>,
}

impl Deadline {
    /// This reward, given `limit` for each batch.
    #[must_use]
    pub fn new(reward: BoxedReward, limit: Duration) -> Self {
        Self { name: reward.name().into(), limit, reward: Some(reward) }
    }

    fn abandoned(&self) -> RewardError {
        RewardError::Failed { function: self.name.clone(), reason: "it hung in an earlier call".into() }
    }
}

impl RewardFn for Deadline {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let mut reward = self.reward.take().ok_or_else(|| self.abandoned())?;
        let (sender, receiver) = mpsc::channel();
        let batch = rollouts.to_vec();
        thread::spawn(move || {
            let scored = score_rollouts(&mut reward, &batch);
            // Nobody waits any more where the time was over.
            let _ = sender.send((reward, scored));
        });
        let late = |_| RewardError::Deadline { function: self.name.clone(), limit: self.limit };
        let (reward, scored) = receiver.recv_timeout(self.limit).map_err(late)?;
        self.reward = Some(reward);
        Ok(scored?.scores)
    }

    fn state(&self) -> Value {
        self.reward.as_ref().map_or(Value::Null, RewardFn::state)
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        let abandoned = self.abandoned();
        self.reward.as_mut().ok_or(abandoned)?.restore(state)
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, limit, .. } = self;
        f.debug_struct("Deadline").field("name", name).field("limit", limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::each_fn, *};

    #[test]
    fn a_reward_that_hangs_is_an_error() {
        let hangs = each_fn("hangs", |rollout: &Rollout| {
            if rollout.completion == "hang" {
                thread::sleep(Duration::from_mins(1));
            }
            1.0
        });
        let mut reward = Deadline::new(Box::new(hangs), Duration::from_secs(1));
        assert_eq!(reward.score(&[Rollout::new("p", "a")]).unwrap(), [Score::Value(1.0)]);
        let error = reward.score(&[Rollout::new("p", "hang")]).unwrap_err();
        assert_eq!(error.to_string(), "reward `hangs` took longer than 1s");
        let error = reward.score(&[Rollout::new("p", "a")]).unwrap_err();
        assert_eq!(error.to_string(), "reward `hangs` failed: it hung in an earlier call");
    }

    #[test]
    fn a_panic_is_caught_in_its_thread() {
        let bad = each_fn("bad", |_| -> f64 { panic!("oh") });
        let mut reward = Deadline::new(Box::new(bad), Duration::from_mins(1));
        let error = reward.score(&[Rollout::new("p", "a")]).unwrap_err();
        assert_eq!(error.to_string(), "reward `bad` panicked: oh");
    }
}
