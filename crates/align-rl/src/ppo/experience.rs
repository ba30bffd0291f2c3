//! What policy and critic learn from.

use serde::{Deserialize, Serialize};

use crate::{error::RlError, experience::Experience};

/// A trajectory with what each of its states was, and turned out to be, worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValuedExperience {
    /// What the policy learns from.
    pub experience: Experience,
    /// What the critic said of each state before the first update. `[states]`: one an action, and one more where the
    /// [score comes after the last](crate::loss::ScorePlacement::AfterLastAction)
    pub old_values: Vec<f32>,
    /// What the critic is to say of each state. `[states]`
    pub returns: Vec<f32>,
}

/// Refuses what the critic cannot learn from. `states` are those of each trajectory.
pub(super) fn check_values(batch: &[&ValuedExperience], states: &[usize]) -> Result<(), RlError> {
    for (index, (one, &states)) in batch.iter().zip(states).enumerate() {
        for (what, values) in [("old values", &one.old_values), ("returns", &one.returns)] {
            if values.len() != states {
                return Err(RlError::Misaligned { index, what, actions: states, found: values.len() });
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(RlError::NotANumber { index, what });
            }
        }
    }
    Ok(())
}
