//! Rewards for how long a completion is.

use std::{f64::consts::PI, num::NonZeroUsize};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    function::{BoxedReward, RewardError, RewardFn, score_rollouts},
    rollout::Rollout,
    score::Score,
};

/// How long a completion is: a number of one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Tokens, as they were sampled; a rollout without tokens has no length.
    #[default]
    Tokens,
    /// Words between white space.
    Words,
    /// Characters.
    Characters,
}

impl LengthUnit {
    /// The length of a rollout's completion.
    ///
    /// # Errors
    /// The reason why it has none.
    pub fn length(self, rollout: &Rollout) -> Result<usize, String> {
        match self {
            Self::Tokens => {
                rollout.tokens.as_ref().map(Vec::len).ok_or_else(|| "the rollout has no tokens".to_string())
            }
            Self::Words => Ok(rollout.completion.split_whitespace().count()),
            Self::Characters => Ok(rollout.completion.chars().count()),
        }
    }
}

/// The length itself, to be weighted: a negative weight rewards brevity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// What is counted.
    #[serde(default)]
    pub unit: LengthUnit,
}

impl RewardFn for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let score = |rollout: &Rollout| self.unit.length(rollout).map(|length| length as f64).into();
        Ok(rollouts.iter().map(score).collect())
    }
}

/// A penalty that grows over the last `cache` tokens before `max_length`: DAPO's soft overlong punishment.
///
/// ```text
/// 0                              |y| ≤ L_max − L_cache
/// (L_max − L_cache − |y|)/L_cache   up to L_max
/// −1                             beyond
/// ```
///
/// # Source
/// Yu et al. 2025, *DAPO*, equation 13, [arXiv:2503.14476](https://arxiv.org/abs/2503.14476); TRL's
/// `get_soft_overlong_punishment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftOverlongPunishment {
    /// `L_max`, from which on the penalty is −1.
    pub max_length: usize,
    /// `L_cache`, over which it grows.
    pub cache: usize,
    /// What is counted.
    #[serde(default)]
    pub unit: LengthUnit,
}

impl SoftOverlongPunishment {
    /// The penalty for this length.
    #[must_use]
    pub fn penalty(&self, length: usize) -> f64 {
        let excess = length as f64 - (self.max_length as f64 - self.cache as f64);
        if length > self.max_length {
            -1.0
        } else if excess <= 0.0 {
            0.0
        } else {
            -excess / self.cache as f64
        }
    }
}

impl RewardFn for SoftOverlongPunishment {
    fn name(&self) -> &'static str {
        "soft_overlong"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let score = |rollout: &Rollout| self.unit.length(rollout).map(|length| self.penalty(length)).into();
        Ok(rollouts.iter().map(score).collect())
    }
}

/// The rewards at the ends of the cosine; the defaults are TRL's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CosineValues {
    /// Of a wrong completion without any tokens.
    pub shortest_wrong: f64,
    /// Of a wrong completion of the maximal length.
    pub longest_wrong: f64,
    /// Of a right completion of the maximal length.
    pub longest_right: f64,
    /// Of a right completion without any tokens.
    pub shortest_right: f64,
}

impl Default for CosineValues {
    fn default() -> Self {
        Self { shortest_wrong: -1.0, longest_wrong: -0.5, longest_right: 0.5, shortest_right: 1.0 }
    }
}

/// Correctness with a preference for short right answers and for long wrong ones.
///
/// ```text
/// R(y) = longest + ½ (shortest − longest) (1 + cos(π · min(|y| / L_max, 1)))
/// ```
///
/// A completion is right where the inner reward is above one half.
///
/// # Source
/// Yeo et al. 2025, *Demystifying Long Chain-of-Thought Reasoning in LLMs*, appendix C.1,
/// [arXiv:2502.03373](https://arxiv.org/abs/2502.03373); TRL's `get_cosine_scaled_reward`.
pub struct CosineLength {
    correctness: BoxedReward,
    max_length: NonZeroUsize,
    unit: LengthUnit,
    values: CosineValues,
}

impl CosineLength {
    /// Around a reward that says what is right.
    #[must_use]
    pub fn new(
        correctness: BoxedReward,
        max_length: NonZeroUsize,
        unit: LengthUnit,
        values: CosineValues,
    ) -> Self {
        Self { correctness, max_length, unit, values }
    }

    fn at(&self, right: bool, length: usize) -> f64 {
        let progress = (length as f64 / self.max_length.get() as f64).min(1.0);
        let CosineValues { shortest_wrong, longest_wrong, longest_right, shortest_right } = self.values;
        let (shortest, longest) =
            if right { (shortest_right, longest_right) } else { (shortest_wrong, longest_wrong) };
        longest + 0.5 * (shortest - longest) * (1.0 + (PI * progress).cos())
    }
}

impl RewardFn for CosineLength {
    fn name(&self) -> &'static str {
        "cosine_length"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let inner = score_rollouts(&mut self.correctness, rollouts)?.scores;
        let scale = |(rollout, score): (&Rollout, Score)| match (score, self.unit.length(rollout)) {
            (Score::Value(value), Ok(length)) => self.at(value > 0.5, length).into(),
            (Score::Value(_), Err(reason)) => Score::unscored(reason),
            (unscored, _) => unscored,
        };
        Ok(rollouts.iter().zip(inner).map(scale).collect())
    }

    fn state(&self) -> Value {
        self.correctness.state()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RewardError> {
        self.correctness.restore(state)
    }
}

impl std::fmt::Debug for CosineLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { max_length, unit, values, .. } = self;
        let mut debug = f.debug_struct("CosineLength");
        debug.field("correctness", &self.correctness.name()).field("max_length", max_length);
        debug.field("unit", unit).field("values", values).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::each_fn;

    fn of_length(tokens: usize) -> Rollout {
        Rollout::new("p", "one two").with_tokens(vec![1; tokens])
    }

    fn assert_close(found: &[Score], expected: &[f64]) {
        let found: Vec<f64> = found.iter().filter_map(Score::value).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// The expected values were computed with TRL 1.16.0.
    #[test]
    fn the_overlong_punishment_is_trls() {
        let rollouts = [0, 5, 7, 8, 9, 10, 11, 80, 81, 90, 100, 101].map(of_length);
        for (max_length, cache, expected) in [
            (100, 20, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.05, -0.5, -1.0, -1.0]),
            (100, 0, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]),
            (8, 8, [0.0, -0.625, -0.875, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]),
            (10, 3, [0.0, 0.0, 0.0, -1.0 / 3.0, -2.0 / 3.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]),
        ] {
            let mut reward = SoftOverlongPunishment { max_length, cache, unit: LengthUnit::Tokens };
            assert_close(&reward.score(&rollouts).unwrap(), &expected);
        }
    }

    /// The expected values were computed with TRL 1.16.0.
    #[test]
    fn the_cosine_is_trls() {
        let lengths = [0, 25, 50, 100, 250];
        for (right, expected) in [
            (true, [1.0, 0.926_776_695_296_636_9, 0.75, 0.5, 0.5]),
            (false, [-1.0, -0.926_776_695_296_636_9, -0.75, -0.5, -0.5]),
        ] {
            let correctness: BoxedReward = Box::new(each_fn("right", move |_| right));
            let max_length = NonZeroUsize::new(100).unwrap();
            let mut reward =
                CosineLength::new(correctness, max_length, LengthUnit::Tokens, CosineValues::default());
            assert_close(&reward.score(&lengths.map(of_length)).unwrap(), &expected);
            assert!(reward.score(&[Rollout::new("p", "no tokens")]).unwrap()[0].is_unscored());
        }
    }

    #[test]
    fn lengths_are_counted_in_each_unit() {
        let rollout = Rollout::new("p", "naïve café").with_tokens(vec![1, 2, 3]);
        let length = |unit: LengthUnit| unit.length(&rollout);
        assert_eq!(length(LengthUnit::Tokens), Ok(3));
        assert_eq!(length(LengthUnit::Words), Ok(2));
        assert_eq!(length(LengthUnit::Characters), Ok(10));
        let mut words = Length { unit: LengthUnit::Words };
        assert_eq!(words.score(&[rollout]).unwrap(), [Score::Value(2.0)]);
        assert_eq!(
            LengthUnit::Tokens.length(&Rollout::new("p", "x")),
            Err("the rollout has no tokens".into())
        );
    }
}
