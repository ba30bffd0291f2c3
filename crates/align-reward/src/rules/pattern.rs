//! Completions of a form.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{
    function::{RewardError, RewardFn},
    rollout::{FinishReason, Rollout},
    score::Score,
};

/// What a [`Pattern`] looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternConfig {
    /// A regular expression of the crate regex: `(?s)` lets `.` match line ends, `(?i)` ignores case; there are no
    /// look-arounds.
    pub pattern: String,
    /// How much of the completion must match.
    #[serde(default)]
    pub matching: MatchMode,
}

/// How much of a text must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchMode {
    /// Some part.
    #[default]
    Anywhere,
    /// All of it.
    Whole,
    /// No part may.
    Nowhere,
}

/// A pattern is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is no regular expression")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// Why not.
    #[source]
    pub source: regex::Error,
}

/// 1 if the completion matches a regular expression, else 0.
///
/// Matching takes time in proportion to the text, whatever the pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    matching: MatchMode,
}

impl Pattern {
    /// Compiles the pattern.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(config: &PatternConfig) -> Result<Self, PatternError> {
        let pattern = match config.matching {
            MatchMode::Whole => format!(r"\A(?:{})\z", config.pattern),
            MatchMode::Anywhere | MatchMode::Nowhere => config.pattern.clone(),
        };
        let regex = Regex::new(&pattern)
            .map_err(|source| PatternError { pattern: config.pattern.clone(), source })?;
        Ok(Self { regex, matching: config.matching })
    }
}

impl RewardFn for Pattern {
    fn name(&self) -> &'static str {
        "regex"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let wanted = self.matching != MatchMode::Nowhere;
        let score = |rollout: &Rollout| Score::from(self.regex.is_match(&rollout.completion) == wanted);
        Ok(rollouts.iter().map(score).collect())
    }
}

/// 1 if the completion begins with `<think>`, closes it with `</think>`, and opens it only once, else 0: TRL's
/// `think_format_reward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinkFormat {}

impl RewardFn for ThinkFormat {
    fn name(&self) -> &'static str {
        "think_format"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let well_formed = |rollout: &Rollout| {
            let rest = rollout.completion.strip_prefix("<think>");
            rest.is_some_and(|rest| rest.contains("</think>") && !rest.contains("<think>"))
        };
        Ok(rollouts.iter().map(|rollout| well_formed(rollout).into()).collect())
    }
}

/// 1 if the model ended the completion itself, 0 if there was no room for more; what was cancelled is unscored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {}

impl RewardFn for Finished {
    fn name(&self) -> &'static str {
        "finished"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let score = |rollout: &Rollout| match rollout.finish {
            FinishReason::Stop => Score::from(true),
            FinishReason::Length => Score::from(false),
            FinishReason::Cancelled => Score::unscored("the completion was cancelled"),
        };
        Ok(rollouts.iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_its_own_is_rewarded() {
        let ended = |finish| Rollout::new("p", "c").finished(finish);
        let rollouts = [FinishReason::Stop, FinishReason::Length, FinishReason::Cancelled].map(ended);
        let scores = Finished::default().score(&rollouts).unwrap();
        assert_eq!(scores[..2], [Score::Value(1.0), Score::Value(0.0)]);
        assert!(scores[2].is_unscored());
    }

    fn values(reward: &mut dyn RewardFn, texts: &[&str]) -> Vec<f64> {
        let rollouts: Vec<Rollout> = texts.iter().map(|text| Rollout::new("p", *text)).collect();
        reward.score(&rollouts).unwrap().iter().filter_map(Score::value).collect()
    }

    #[test]
    fn the_think_format_is_trls() {
        let texts = [
            "<think>\nThis is my reasoning.\n</think>\nThis is my answer.",
            "<think>\nThis is my reasoning.\nThis is my answer.",
            "<think>a</think>",
            "<think></think>x",
            "x<think>a</think>",
            "<think>a<think>b</think>c",
            "<think>a</think>b</think>c",
            "<think>a</think>b<think>c",
            "\n<think>a</think>b",
            "",
        ];
        // Computed with TRL 1.16.0.
        let expected = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
        assert_eq!(values(&mut ThinkFormat::default(), &texts), expected);
    }

    #[test]
    fn patterns_match_anywhere_wholly_or_nowhere() {
        let texts = ["yes", "yes or no", "no"];
        let check = |matching, expected: [f64; 3]| {
            let config = PatternConfig { pattern: "yes|YES".into(), matching };
            assert_eq!(values(&mut Pattern::new(&config).unwrap(), &texts), expected, "{matching:?}");
        };
        check(MatchMode::Anywhere, [1.0, 1.0, 0.0]);
        check(MatchMode::Whole, [1.0, 0.0, 0.0]);
        check(MatchMode::Nowhere, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_broken_pattern_is_an_error() {
        let config = PatternConfig { pattern: "(a".into(), matching: MatchMode::Whole };
        let error = Pattern::new(&config).unwrap_err();
        assert_eq!(error.to_string(), "`(a` is no regular expression");
    }
}
