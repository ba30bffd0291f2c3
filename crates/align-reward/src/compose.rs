//! Rewards made of rewards.
//!
//! Wherever a part is unscored, so is the whole, with the part's name in the reason, unless a composition says
//! otherwise.

mod debias;
mod fold;
mod gate;
mod moments;
mod normalize;
mod sum;
mod transform;

pub use debias::{LengthDebiased, LengthRegression};
pub use fold::{Minimum, Product};
pub use gate::{Gate, Otherwise};
pub use moments::RunningMoments;
pub use normalize::Normalized;
use serde_json::Value;
pub use sum::{MissingPart, PartScores, WeightedPart, WeightedSum};
pub use transform::{Affine, Clipped};

use crate::function::{BoxedReward, RewardError, RewardFn};

/// The states of several parts.
fn states<'r>(parts: impl Iterator<Item = &'r BoxedReward>) -> Value {
    let states: Vec<Value> = parts.map(RewardFn::state).collect();
    // What has no state anywhere needs no room in a checkpoint.
    if states.iter().all(Value::is_null) { Value::Null } else { Value::Array(states) }
}

/// Gives several parts their states back.
fn restore_all<'r>(
    name: &str,
    parts: impl ExactSizeIterator<Item = &'r mut BoxedReward>,
    state: &Value,
) -> Result<(), RewardError> {
    let wrong = |reason: String| RewardError::State { function: name.into(), reason };
    match state {
        Value::Null => parts.into_iter().try_for_each(|part| part.restore(&Value::Null)),
        Value::Array(states) if states.len() == parts.len() => {
            parts.zip(states).try_for_each(|(part, state)| part.restore(state))
        }
        Value::Array(states) => {
            Err(wrong(format!("it was saved with {} parts, there are {}", states.len(), parts.len())))
        }
        _ => Err(wrong("it is not a list of states".into())),
    }
}

#[cfg(test)]
mod tests;
