//! The seam that every source of reward implements, and the guarded way to call one.

mod closure;
mod deadline;
mod error;
mod sequence;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub use closure::{BatchFn, EachFn, batch_fn, each_fn};
pub use deadline::Deadline;
pub use error::RewardError;
pub use sequence::{SequenceFn, sequence_fn};
use serde_json::Value;

use crate::{rollout::Rollout, score::Score};

/// Scores finished rollouts: reward models, rules, judges, endpoints, compositions and closures.
///
/// The whole batch is passed, so that a reward may compare the rollouts of one [group](Rollout::group); others simply
/// map.
///
/// Call it through [`score_rollouts`], which does not trust it.
pub trait RewardFn {
    /// What it is called in logs and errors.
    fn name(&self) -> &str;

    /// One score per rollout, in order.
    ///
    /// # Errors
    /// If nothing can be scored, such as when an endpoint is down. A *wrong* answer is a low score, and a rollout of
    /// which nothing can be said is [`Score::Unscored`].
    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError>;

    /// Everything that later scores depend on besides the rollouts, for a checkpoint; `null` without any. Rewards
    /// that hold others must include their states.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes over what [`RewardFn::state`] returned.
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

/// A reward of any kind that may move between threads.
pub type BoxedReward = Box<dyn RewardFn + Send>;

impl<R: RewardFn + ?Sized> RewardFn for Box<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        (**self).score(rollouts)
    }

    fn state(&self) -> Value {
        (**self).state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        (**self).restore(state)
    }
}

/// Scores, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One per rollout, every value finite.
    pub scores: Vec<Score>,
    /// How many were NaN or infinite and are now unscored.
    pub not_finite: usize,
}

/// Scores rollouts with a reward that may be wrong: it may panic, return too few scores, or numbers that are none.
///
/// Values that are not finite become [`Score::Unscored`] and are counted. Compositions call their parts in the same
/// way.
///
/// # Errors
/// What the reward says; [`RewardError::Panicked`]; [`RewardError::WrongCount`].
pub fn score_rollouts<R: RewardFn + ?Sized>(
    reward: &mut R,
    rollouts: &[Rollout],
) -> Result<Scored, RewardError> {
    if rollouts.is_empty() {
        return Ok(Scored { scores: Vec::new(), not_finite: 0 });
    }
    let name = reward.name().to_owned();
    let mut scores = guarded(&name, || reward.score(rollouts))?;
    if scores.len() != rollouts.len() {
        let (expected, found) = (rollouts.len(), scores.len());
        return Err(RewardError::WrongCount { function: reward.name().into(), expected, found });
    }
    let mut not_finite = 0;
    for score in &mut scores {
        if let Score::Value(value) = *score
            && !value.is_finite()
        {
            *score = Score::unscored(format!("{} gave {value}", reward.name()));
            not_finite += 1;
        }
    }
    Ok(Scored { scores, not_finite })
}

/// Calls something that may panic, and makes an error of that.
///
/// # Errors
/// What it says; [`RewardError::Panicked`].
pub fn guarded<T>(name: &str, call: impl FnOnce() -> Result<T, RewardError>) -> Result<T, RewardError> {
    // What panicked is not called again by whoever gets the error, so what it left half done does no harm.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(RewardError::Panicked { function: name.into(), message: panic_message(&*panic) })
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollouts() -> Vec<Rollout> {
        ["a", "bb", "ccc"].map(|text| Rollout::new("p", text)).to_vec()
    }

    fn fails(reward: &mut dyn RewardFn) -> RewardError {
        score_rollouts(reward, &rollouts()).unwrap_err()
    }

    #[test]
    fn a_wrong_count_is_an_error() {
        let mut short = batch_fn("short", |_| Ok(vec![Score::Value(1.0)]));
        assert_eq!(fails(&mut short).to_string(), "reward `short` returned 1 scores for 3 rollouts");
        let mut long = batch_fn("long", |rollouts| Ok(vec![Score::Value(1.0); rollouts.len() + 1]));
        assert!(matches!(fails(&mut long), RewardError::WrongCount { expected: 3, found: 4, .. }));
    }

    #[test]
    fn a_panic_is_an_error() {
        let mut bad = each_fn("bad", |rollout: &Rollout| f64::from(rollout.completion.as_bytes()[1]));
        let RewardError::Panicked { function, message } = fails(&mut bad) else { panic!("another error") };
        assert_eq!(function, "bad");
        assert!(message.contains("out of bounds"), "{message}");
    }

    #[test]
    fn numbers_that_are_none_become_unscored_and_are_counted() {
        let values = [f64::NAN, 2.0, f64::INFINITY];
        let mut raw = batch_fn("raw", move |_| Ok(values.map(Score::Value).to_vec()));
        let scored = score_rollouts(&mut raw, &rollouts()).unwrap();
        assert_eq!(scored.not_finite, 2);
        assert_eq!(scored.scores[0], Score::unscored("raw gave NaN"));
        assert_eq!(scored.scores[1], Score::Value(2.0));
        assert_eq!(scored.scores[2], Score::unscored("raw gave inf"));
    }

    #[test]
    fn failures_pass_through() {
        let mut down = batch_fn("down", |_| {
            Err(RewardError::Failed { function: "down".into(), reason: "no model is loaded".into() })
        });
        assert_eq!(fails(&mut down).to_string(), "reward `down` failed: no model is loaded");
    }

    #[test]
    fn nothing_is_asked_of_nothing() {
        let mut never = batch_fn("never", |_| panic!("called"));
        assert_eq!(score_rollouts(&mut never, &[]).unwrap().scores, []);
    }

    #[test]
    fn a_reward_without_state_refuses_one() {
        let mut reward: BoxedReward = Box::new(each_fn("one", |_| 1.0));
        assert!(reward.restore(&reward.state()).is_ok());
        assert!(matches!(reward.restore(&1.into()), Err(RewardError::State { .. })));
    }
}
