//! Which of the algorithms it is.

use std::num::NonZeroUsize;

use align_model::number::{Positive, PositiveUnit};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use super::{TokenSelection, config::setting};
use crate::{
    error::RlConfigError,
    kl::KlControl,
    loss::{Accumulation, AdvantageEstimator, Surrogate},
    objective::{PolicyObjective, Preset},
    rollout::RolloutConfig,
};

/// What is minimised, and what completions are compared with.
///
/// A run file gives a name, a name with changes, or spells everything out:
/// ```toml
/// algorithm = "grpo"
/// ```
/// ```toml
/// [algorithm]
/// preset = "grpo"
/// objective = { kl = { coefficient = 0.04 } }
/// advantages = { kind = "group", scale = "none" }
/// ```
/// What `objective` names replaces what the preset has there. `dr_grpo` divides by `max_completion_length`, 512 unless
/// given beside it. Without a `preset` it begins with the default, which is DAPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Algorithm {
    /// What is minimised.
    pub objective: PolicyObjective,
    /// How the coefficient of the objective's `kl` behaves over time.
    pub kl_control: KlControl,
    /// Where advantages come from.
    pub advantages: AdvantageEstimator,
    /// So many times the divergence from the reference, estimated by `k1`, is taken off each token's reward, instead of
    /// being added to the loss. TRL's `beta` of RLOO: 0.05.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reward_kl: Option<Positive>,
    /// Which tokens are learnt from.
    pub selection: TokenSelection,
    /// What the forward passes of an update are divided by. TRL's way only matters where `micro_batch_size` cuts an update.
    pub accumulation: Accumulation,
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::preset(Preset::Dapo)
    }
}

impl Algorithm {
    /// An algorithm by its name.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        Self::of(preset, RolloutConfig::default().max_new_tokens)
    }

    /// An algorithm by its name; `max_completion_length` is what Dr. GRPO divides by.
    #[must_use]
    pub fn of(preset: Preset, max_completion_length: NonZeroUsize) -> Self {
        let selection = match preset {
            Preset::KlCov => TokenSelection::PenalizedCovariance { share: PositiveUnit::new(2e-4) },
            _ => TokenSelection::All,
        };
        let accumulation = match preset {
            Preset::Bnpo => Accumulation::MicroBatchMean,
            _ => Accumulation::Exact,
        };
        Self {
            objective: preset.objective(max_completion_length),
            kl_control: KlControl::default(),
            advantages: preset.advantages(),
            reward_kl: None,
            selection,
            accumulation,
        }
    }

    /// Whether the policy is held to a reference.
    #[must_use]
    pub fn needs_reference(&self) -> bool {
        self.objective.kl.is_some() || self.reward_kl.is_some()
    }

    /// Whether what is clipped is a sequence and not a token.
    pub(super) fn clips_sequences(&self) -> bool {
        self.objective.ratio.is_of_sequences()
    }

    pub(super) fn check(&self, samples: NonZeroUsize) -> Result<(), RlConfigError> {
        self.objective.check()?;
        if self.kl_control != (KlControl::Fixed {}) && self.objective.kl.is_none() {
            return Err(setting("algorithm.kl_control", "has no `objective.kl` to steer: leave it out"));
        }
        if self.reward_kl.is_some() && self.objective.kl.is_some() {
            let problem = "holds the policy to its reference a second time beside `objective.kl`: leave one of them out";
            return Err(setting("algorithm.reward_kl", problem));
        }
        if self.advantages.compares_groups() && samples.get() < 2 {
            let problem = "must be at least 2: `algorithm.advantages` compares the completions of a prompt";
            return Err(setting("rollout.samples", problem));
        }
        let penalizes = matches!(self.selection, TokenSelection::PenalizedCovariance { .. });
        let is_priced = matches!(self.objective.surrogate, Surrogate::KlCov { .. });
        if penalizes != is_priced {
            let problem = "`penalized_covariance` and `objective.surrogate` `kl_cov` need each other";
            return Err(setting("algorithm.selection", problem));
        }
        Ok(())
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spelled = match Value::deserialize(deserializer)? {
            Value::Object(table) => table,
            name => Map::from_iter([("preset".to_owned(), name)]),
        };
        from_table(spelled).map_err(D::Error::custom)
    }
}

fn from_table(mut table: Map<String, Value>) -> Result<Algorithm, serde_json::Error> {
    let preset = match table.remove("preset") {
        Some(name) => serde_json::from_value(name)?,
        None => Preset::Dapo,
    };
    let base = match table.remove("max_completion_length") {
        Some(_) if preset != Preset::DrGrpo => {
            let reason = "`max_completion_length` belongs to the preset `dr_grpo`: leave it out";
            return Err(serde_json::Error::custom(reason));
        }
        Some(length) => Algorithm::of(preset, serde_json::from_value(length)?),
        None => Algorithm::preset(preset),
    };
    let mut whole = serde_json::to_value(&base)?;
    for (key, value) in table {
        match (whole.get_mut(&key), value) {
            (Some(Value::Object(objective)), Value::Object(changes)) if key == "objective" => {
                objective.extend(changes);
            }
            (_, value) => {
                whole[key] = value;
            }
        }
    }
    Algorithm::deserialize(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GroupConfig, kl::KlPenalty, loss::AdvantageScale};

    fn read(text: &str) -> Result<GroupConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_algorithm_is_a_name_or_a_name_with_changes_or_spelled_out() {
        assert_eq!(read("").unwrap().algorithm, Algorithm::preset(Preset::Dapo));
        assert_eq!(read("algorithm = 'rloo'").unwrap().algorithm, Algorithm::preset(Preset::Rloo));
        let changed = "[algorithm]\npreset = 'grpo'\nobjective = { kl = { coefficient = 0.04 } }\n\
                       advantages = { kind = 'group', scale = 'none' }";
        let changed = read(changed).unwrap();
        let mut expected = Algorithm::preset(Preset::Grpo);
        expected.objective.kl = Some(KlPenalty::k3(Positive::new(0.04)));
        expected.advantages = AdvantageEstimator::group(AdvantageScale::None);
        assert_eq!(changed.algorithm, expected);
        assert!(changed.check().is_ok() && changed.reference_policy().is_some());
        let spelled = toml::to_string(&changed).unwrap();
        assert_eq!(read(&spelled).unwrap(), changed, "{spelled}");
    }

    #[test]
    fn dr_grpo_divides_by_a_length() {
        let config = read("algorithm = { preset = 'dr_grpo', max_completion_length = 64 }").unwrap();
        let length = NonZeroUsize::new(64).unwrap();
        assert_eq!(config.algorithm, Algorithm::of(Preset::DrGrpo, length));
        let error = read("algorithm = { preset = 'grpo', max_completion_length = 64 }").unwrap_err();
        assert!(error.to_string().contains("dr_grpo"), "{error}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "algorithm = 'gppo'",
            "algorithm = { preset = 'grpo', objectives = {} }",
            "algorithm = { preset = 'grpo', objective = { betta = 0.1 } }",
            "algorithm = 7",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
