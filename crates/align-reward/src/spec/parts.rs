//! Descriptions that hold descriptions.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::{RewardSpec, SpecError, WeightedSpec};
use crate::{
    compose::{LengthRegression, MissingPart, Otherwise},
    function::BoxedReward,
    rules::{CosineValues, LengthUnit},
};

/// Correctness, scaled by length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosineLengthSpec {
    /// What says whether a completion is right.
    pub correctness: Box<RewardSpec>,
    /// The length from which on nothing changes.
    pub max_length: NonZeroUsize,
    /// What is counted.
    #[serde(default)]
    pub unit: LengthUnit,
    /// The rewards at both ends.
    #[serde(default)]
    pub values: CosineValues,
}

/// Rewards that are added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumSpec {
    /// The addends.
    pub parts: Vec<WeightedSpec>,
    /// What becomes of a rollout that some of them cannot score.
    #[serde(default)]
    pub missing: MissingPart,
}

/// Rewards of equal rights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartsSpec {
    /// The rewards.
    pub parts: Vec<RewardSpec>,
}

impl PartsSpec {
    pub(super) fn build(&self, kind: &'static str) -> Result<Vec<BoxedReward>, SpecError> {
        if self.parts.is_empty() {
            return Err(SpecError::NoParts { kind });
        }
        self.parts.iter().map(RewardSpec::build).collect()
    }
}

/// A reward between bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSpec {
    /// The reward.
    pub reward: Box<RewardSpec>,
    /// The least that it may give.
    pub low: f64,
    /// The most that it may give.
    pub high: f64,
}

/// A reward, scaled and shifted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AffineSpec {
    /// The reward.
    pub reward: Box<RewardSpec>,
    /// What it is multiplied by.
    #[serde(default = "one")]
    pub scale: f64,
    /// What is added afterwards.
    #[serde(default)]
    pub shift: f64,
}

fn one() -> f64 {
    1.0
}

/// A reward that something is done to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InnerSpec {
    /// The reward.
    pub reward: Box<RewardSpec>,
}

/// A reward without what length explains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebiasLengthSpec {
    /// The reward.
    pub reward: Box<RewardSpec>,
    /// What is counted.
    #[serde(default)]
    pub unit: LengthUnit,
    /// A regression that was fitted before; without one it is learnt on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<LengthRegression>,
}

/// A reward under a condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// The condition.
    pub condition: Box<RewardSpec>,
    /// The least value of the condition that lets the reward count.
    #[serde(default = "one")]
    pub threshold: f64,
    /// The reward.
    pub reward: Box<RewardSpec>,
    /// What other rollouts get.
    #[serde(default = "zero")]
    pub otherwise: Otherwise,
}

fn zero() -> Otherwise {
    Otherwise::Value(0.0)
}
