//! Completions that must be JSON of a form.

use std::fmt;

use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AnswerFormat, Extraction};
use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// What a [`JsonSchema`] demands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaConfig {
    /// The schema. References to other documents are not followed.
    pub schema: Value,
    /// How the JSON is found in the completion; by default the last fenced block, or all of the completion where
    /// there is none.
    #[serde(default)]
    pub answer: Option<AnswerFormat>,
}

/// A schema cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the JSON schema cannot be used: {reason}")]
pub struct SchemaError {
    /// Why not.
    pub reason: String,
}

/// 1 if the completion holds JSON that satisfies a schema, else 0.
pub struct JsonSchema {
    validator: Validator,
    answer: Option<AnswerFormat>,
}

impl JsonSchema {
    /// Compiles the schema.
    ///
    /// # Errors
    /// If it is none, or refers to another document.
    pub fn new(config: &JsonSchemaConfig) -> Result<Self, SchemaError> {
        let validator = jsonschema::validator_for(&config.schema);
        let validator = validator.map_err(|error| SchemaError { reason: error.to_string() })?;
        Ok(Self { validator, answer: config.answer.clone() })
    }

    fn is_valid(&self, completion: &str) -> bool {
        let found = match &self.answer {
            Some(answer) => answer.find(completion),
            None => Extraction::CodeBlock.find(completion).or(Some(completion)),
        };
        let parsed = found.and_then(|text| serde_json::from_str(text.trim()).ok());
        parsed.is_some_and(|value: Value| self.validator.is_valid(&value))
    }
}

impl RewardFn for JsonSchema {
    fn name(&self) -> &'static str {
        "json_schema"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        Ok(rollouts.iter().map(|rollout| self.is_valid(&rollout.completion).into()).collect())
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").field("answer", &self.answer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(schema: Value) -> JsonSchemaConfig {
        JsonSchemaConfig { schema, answer: None }
    }

    #[test]
    fn only_what_satisfies_the_schema_is_right() {
        let schema = json!({
            "type": "object",
            "properties": {"city": {"type": "string"}, "degrees": {"type": "number"}},
            "required": ["city"],
            "additionalProperties": false
        });
        let mut reward = JsonSchema::new(&config(schema)).unwrap();
        for (completion, right) in [
            (r#"{"city": "Rome"}"#, true),
            ("Here it is:\n```json\n{\"city\": \"Rome\", \"degrees\": 21.5}\n```\nBye!", true),
            (r#"{"city": "Rome", "degrees": "warm"}"#, false),
            (r#"{"degrees": 3}"#, false),
            (r#"{"city": "Rome", "country": "Italy"}"#, false),
            (r#"{"city": "Rome""#, false),
            ("", false),
        ] {
            let score = reward.score(&[Rollout::new("p", completion)]).unwrap().remove(0);
            assert_eq!(score, Score::from(right), "{completion}");
        }
    }

    #[test]
    fn a_broken_schema_is_an_error() {
        let error = JsonSchema::new(&config(json!({"type": "objekt"}))).unwrap_err();
        assert!(error.to_string().starts_with("the JSON schema cannot be used: "), "{error}");
        assert!(JsonSchema::new(&config(json!({"$ref": "https://example.com/schema.json"}))).is_err());
    }

    #[test]
    fn deep_json_is_refused() {
        let mut reward = JsonSchema::new(&config(json!(true))).unwrap();
        let deep = "[".repeat(100_000);
        assert_eq!(reward.score(&[Rollout::new("p", deep)]).unwrap(), [Score::Value(0.0)]);
    }
}
