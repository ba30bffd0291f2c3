//! Rewards described in a run file.
//!
//! ```toml
//! [[rewards]]
//! kind = "numeric"
//! truth = { column = "answer", extract = { marker = "####" } }
//!
//! [[rewards]]
//! kind = "soft_overlong"
//! weight = 0.5
//! max_length = 1024
//! cache = 256
//! ```

mod parts;
mod weighted;

pub use parts::{
    AffineSpec, ClipSpec, CosineLengthSpec, DebiasLengthSpec, GateSpec, InnerSpec, PartsSpec, SumSpec,
};
use serde::{Deserialize, Serialize};
pub use weighted::{WeightedSpec, build_sum};

use crate::{
    command::CommandConfig,
    compose::{Affine, Clipped, Gate, LengthDebiased, Minimum, Normalized, Product},
    function::{BoxedReward, RewardError},
    http::HttpConfig,
    rules::{
        CosineLength, ExactMatch, Finished, JsonSchema, JsonSchemaConfig, Length, MathEquality,
        NumericEquality, Pattern, PatternConfig, PatternError, RepetitionPenalty, SchemaError,
        SoftOverlongPunishment, ThinkFormat,
    },
};

/// Every reward that a file can describe.
///
/// ```
/// use align_reward::spec::RewardSpec;
///
/// let spec: RewardSpec = serde_json::from_str(r#"{"kind": "regex", "pattern": "^yes"}"#)?;
/// assert_eq!(spec.build()?.name(), "regex");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RewardSpec {
    /// See [`ExactMatch`].
    ExactMatch(ExactMatch),
    /// See [`NumericEquality`].
    Numeric(NumericEquality),
    /// See [`MathEquality`].
    Math(MathEquality),
    /// See [`Pattern`].
    Regex(PatternConfig),
    /// See [`ThinkFormat`].
    ThinkFormat(ThinkFormat),
    /// See [`Finished`].
    Finished(Finished),
    /// See [`JsonSchema`].
    JsonSchema(JsonSchemaConfig),
    /// See [`Length`].
    Length(Length),
    /// See [`SoftOverlongPunishment`].
    SoftOverlong(SoftOverlongPunishment),
    /// See [`CosineLength`].
    CosineLength(CosineLengthSpec),
    /// See [`RepetitionPenalty`].
    Repetition(RepetitionPenalty),
    /// See [`crate::command`]; needs the feature `command`.
    Command(CommandConfig),
    /// See [`crate::http`]; needs the feature `http`.
    Http(HttpConfig),
    /// See [`crate::compose::WeightedSum`].
    WeightedSum(SumSpec),
    /// See [`Product`].
    Product(PartsSpec),
    /// See [`Minimum`].
    Minimum(PartsSpec),
    /// See [`Clipped`].
    Clip(ClipSpec),
    /// See [`Affine`].
    Affine(AffineSpec),
    /// See [`Normalized`].
    Normalize(InnerSpec),
    /// See [`LengthDebiased`].
    DebiasLength(DebiasLengthSpec),
    /// See [`Gate`].
    Gate(GateSpec),
}

/// A description cannot become a reward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A regular expression is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A JSON schema is none.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A reward refuses its configuration.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The program was built without what the kind needs.
    #[error("a reward of kind `{kind}` needs the cargo feature `{feature}`")]
    MissingFeature {
        /// The kind.
        kind: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// Bounds the wrong way around.
    #[error("`low` is {low}, which is not at most `high`, {high}")]
    Bounds {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
    /// A factor or another number is not finite.
    #[error("`{key}` is {value}, expected a finite number")]
    NotFinite {
        /// The key.
        key: &'static str,
        /// What was given.
        value: f64,
    },
    /// A composition of nothing.
    #[error("a reward of kind `{kind}` needs at least one part")]
    NoParts {
        /// The kind.
        kind: &'static str,
    },
}

impl RewardSpec {
    /// Makes the reward.
    ///
    /// # Errors
    /// If the description makes no sense, or needs a cargo feature that is not there.
    pub fn build(&self) -> Result<BoxedReward, SpecError> {
        Ok(match self {
            Self::ExactMatch(reward) => Box::new(reward.clone()),
            Self::Numeric(reward) => Box::new(reward.clone()),
            Self::Math(reward) => Box::new(reward.clone()),
            Self::Regex(config) => Box::new(Pattern::new(config)?),
            Self::ThinkFormat(reward) => Box::new(*reward),
            Self::Finished(reward) => Box::new(*reward),
            Self::JsonSchema(config) => Box::new(JsonSchema::new(config)?),
            Self::Length(reward) => Box::new(*reward),
            Self::SoftOverlong(reward) => Box::new(reward.clone()),
            Self::CosineLength(spec) => {
                let inner = spec.correctness.build()?;
                Box::new(CosineLength::new(inner, spec.max_length, spec.unit, spec.values))
            }
            Self::Repetition(reward) => Box::new(reward.clone()),
            Self::Command(config) => command(config)?,
            Self::Http(config) => http(config)?,
            Self::WeightedSum(spec) => Box::new(build_sum("weighted_sum", &spec.parts, spec.missing)?),
            Self::Product(spec) => Box::new(Product::new(spec.build("product")?)),
            Self::Minimum(spec) => Box::new(Minimum::new(spec.build("minimum")?)),
            Self::Clip(spec) => {
                let ClipSpec { low, high, .. } = *spec;
                // NaN is not at most anything.
                if !matches!(
                    low.partial_cmp(&high),
                    Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
                ) {
                    return Err(SpecError::Bounds { low, high });
                }
                Box::new(Clipped::new(spec.reward.build()?, low, high))
            }
            Self::Affine(spec) => {
                let (scale, shift) = (finite("scale", spec.scale)?, finite("shift", spec.shift)?);
                Box::new(Affine::new(spec.reward.build()?, scale, shift))
            }
            Self::Normalize(spec) => Box::new(Normalized::new(spec.reward.build()?)),
            Self::DebiasLength(spec) => Box::new(match spec.regression {
                Some(regression) => LengthDebiased::fitted(spec.reward.build()?, spec.unit, regression),
                None => LengthDebiased::running(spec.reward.build()?, spec.unit),
            }),
            Self::Gate(spec) => {
                let (condition, reward) = (spec.condition.build()?, spec.reward.build()?);
                Box::new(Gate::new(condition, spec.threshold, reward, spec.otherwise))
            }
        })
    }
}

fn finite(key: &'static str, value: f64) -> Result<f64, SpecError> {
    if value.is_finite() { Ok(value) } else { Err(SpecError::NotFinite { key, value }) }
}

#[cfg(all(feature = "command", unix))]
fn command(config: &CommandConfig) -> Result<BoxedReward, SpecError> {
    Ok(Box::new(crate::command::CommandReward::new(config.clone())?))
}

#[cfg(not(all(feature = "command", unix)))]
fn command(_: &CommandConfig) -> Result<BoxedReward, SpecError> {
    Err(SpecError::MissingFeature { kind: "command", feature: "command" })
}

#[cfg(feature = "http")]
#[allow(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn http(config: &HttpConfig) -> Result<BoxedReward, SpecError> {
    Ok(Box::new(crate::http::HttpReward::new(config.clone())))
}

#[cfg(not(feature = "http"))]
fn http(_: &HttpConfig) -> Result<BoxedReward, SpecError> {
    Err(SpecError::MissingFeature { kind: "http", feature: "http" })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{function::score_rollouts, rollout::Rollout, score::Score};

    fn spec(value: Value) -> Result<RewardSpec, serde_json::Error> {
        serde_json::from_value(value)
    }

    fn error(value: Value) -> String {
        spec(value).unwrap().build().err().unwrap().to_string()
    }

    /// One of every kind that needs no feature.
    fn every_kind() -> Vec<Value> {
        let inner = json!({"kind": "length", "unit": "words"});
        vec![
            json!({"kind": "exact_match", "normalize": ["case", "white_space"]}),
            json!({"kind": "numeric", "truth": {"column": "answer"}, "relative_tolerance": 0.01}),
            json!({"kind": "math", "answer": {"after": "</think>", "extract": "boxed"}}),
            json!({"kind": "regex", "pattern": "4", "matching": "anywhere"}),
            json!({"kind": "think_format"}),
            json!({"kind": "finished"}),
            json!({"kind": "json_schema", "schema": {"type": "number"}}),
            inner.clone(),
            json!({"kind": "soft_overlong", "max_length": 8, "cache": 4, "unit": "characters"}),
            json!({"kind": "cosine_length", "max_length": 8, "unit": "words", "correctness": {"kind": "numeric"}}),
            json!({"kind": "repetition", "ngram": 1, "unit": "words"}),
            json!({"kind": "weighted_sum", "parts": [{"kind": "numeric", "weight": 0.5}, inner.clone()]}),
            json!({"kind": "product", "parts": [inner.clone(), {"kind": "numeric"}]}),
            json!({"kind": "minimum", "parts": [inner.clone(), {"kind": "numeric"}]}),
            json!({"kind": "clip", "low": -1, "high": 1, "reward": inner.clone()}),
            json!({"kind": "affine", "scale": 2, "shift": -1, "reward": inner.clone()}),
            json!({"kind": "normalize", "reward": inner.clone()}),
            json!({"kind": "debias_length", "unit": "characters", "reward": inner.clone()}),
            json!({"kind": "gate", "condition": {"kind": "regex", "pattern": "4"}, "reward": inner}),
        ]
    }

    #[test]
    fn every_kind_is_built_scores_and_survives_a_file() {
        let rollouts =
            ["4", "It is 5.", ""].map(|text| Rollout::new("2 + 2?", text).with_column("answer", "4"));
        for value in every_kind() {
            let described = spec(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
            let written = serde_json::to_value(&described).unwrap();
            assert_eq!(spec(written.clone()).unwrap(), described, "{written}");
            let mut reward = described.build().unwrap();
            let scored = score_rollouts(&mut reward, &rollouts).unwrap();
            assert!(scored.scores.iter().all(|score| !score.is_unscored()), "{value}: {scored:?}");
            let state = reward.state();
            let next = score_rollouts(&mut reward, &rollouts).unwrap();
            let mut restored = described.build().unwrap();
            restored.restore(&state).unwrap();
            assert_eq!(score_rollouts(&mut restored, &rollouts).unwrap(), next, "{value}");
        }
    }

    #[test]
    fn keys_that_do_not_exist_are_refused() {
        for mut value in every_kind() {
            value["colour"] = json!("red");
            let error = spec(value.clone()).expect_err(&value.to_string());
            assert!(error.to_string().contains("colour"), "{value}: {error}");
        }
        assert!(spec(json!({"kind": "magic"})).unwrap_err().to_string().contains("magic"));
        assert!(spec(json!({"pattern": "a"})).unwrap_err().to_string().contains("kind"));
    }

    #[test]
    fn weights_stand_beside_the_kind() {
        let spec: SumSpec = serde_json::from_value(json!({"parts": [
            {"kind": "length", "unit": "words", "weight": 1},
            {"kind": "regex", "pattern": "a", "weight": -0.5},
            {"kind": "regex", "pattern": "a"},
        ]}))
        .unwrap();
        let weights: Vec<f64> = spec.parts.iter().map(|part| part.weight).collect();
        assert_eq!(weights, [1.0, -0.5, 1.0]);
        let missing: SumSpec = serde_json::from_value(json!({"missing": "leave_out", "parts": []})).unwrap();
        assert_eq!(missing.missing, crate::compose::MissingPart::LeaveOut);
    }

    #[test]
    fn descriptions_without_sense_are_refused() {
        let inner = json!({"kind": "think_format"});
        assert_eq!(
            error(json!({"kind": "clip", "low": 1, "high": 0, "reward": inner})),
            "`low` is 1, which is not at most `high`, 0"
        );
        assert_eq!(
            error(json!({"kind": "product", "parts": []})),
            "a reward of kind `product` needs at least one part"
        );
        assert_eq!(error(json!({"kind": "regex", "pattern": "("})), "`(` is no regular expression");
        assert!(error(json!({"kind": "json_schema", "schema": 3})).contains("JSON schema"));
        let reward = RewardSpec::ThinkFormat(ThinkFormat::default());
        let parts = vec![WeightedSpec { reward, weight: f64::NAN }];
        let sum = RewardSpec::WeightedSum(SumSpec { parts, missing: crate::compose::MissingPart::Unscored });
        assert!(matches!(sum.build(), Err(SpecError::NotFinite { key: "weight", .. })));
    }

    #[cfg(not(feature = "http"))]
    #[test]
    fn a_missing_feature_is_named() {
        assert_eq!(
            error(json!({"kind": "http", "url": "http://localhost"})),
            "a reward of kind `http` needs the cargo feature `http`"
        );
    }

    #[test]
    fn a_gate_asks_only_where_it_is_open() {
        let gate = json!({
            "kind": "gate", "condition": {"kind": "regex", "pattern": "^yes"},
            "reward": {"kind": "length", "unit": "words"}, "otherwise": {"value": -1.0}
        });
        let mut reward = spec(gate).unwrap().build().unwrap();
        let rollouts = ["yes it is", "no"].map(|text| Rollout::new("p", text));
        let scores = score_rollouts(&mut reward, &rollouts).unwrap().scores;
        assert_eq!(scores, [Score::Value(3.0), Score::Value(-1.0)]);
    }
}
