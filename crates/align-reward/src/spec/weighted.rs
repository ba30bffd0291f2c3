//! Lists of rewards with weights.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RewardSpec, SpecError, finite};
use crate::compose::{MissingPart, WeightedPart, WeightedSum};

/// A reward and what it counts. In a file the key `weight` stands beside those of the reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct WeightedSpec {
    /// The reward.
    #[serde(flatten)]
    pub reward: RewardSpec,
    /// What it is multiplied by, 1 if nothing is said.
    pub weight: f64,
}

/// `serde` cannot refuse unknown keys of a flattened field, so the weight is taken out by hand.
impl TryFrom<Map<String, Value>> for WeightedSpec {
    type Error = serde_json::Error;

    fn try_from(mut fields: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let weight = fields.remove("weight").map_or(Ok(1.0), serde_json::from_value)?;
        Ok(Self { reward: serde_json::from_value(Value::Object(fields))?, weight })
    }
}

/// The weighted sum of a list of rewards.
///
/// # Errors
/// If the list is empty, a weight is not finite, or a reward cannot be made.
pub fn build_sum(name: &str, parts: &[WeightedSpec], missing: MissingPart) -> Result<WeightedSum, SpecError> {
    if parts.is_empty() {
        return Err(SpecError::NoParts { kind: "weighted_sum" });
    }
    let build = |part: &WeightedSpec| {
        let weight = finite("weight", part.weight)?;
        Ok(WeightedPart { weight, reward: part.reward.build()? })
    };
    let parts: Vec<WeightedPart> = parts.iter().map(build).collect::<Result<_, SpecError>>()?;
    Ok(WeightedSum::new(name, parts, missing))
}
