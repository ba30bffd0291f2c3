//! Penalties for saying the same again.

use std::{collections::HashSet, hash::Hash, num::NonZeroUsize};

use align_model::number::NonNegative;
use serde::{Deserialize, Serialize};

use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// Minus the share of n-grams that occurred before: 0 without repetition, close to `−max_penalty` for one word said
/// over and over.
///
/// ```text
/// R(y) = −max_penalty · (1 − unique n-grams / n-grams)
/// ```
///
/// Completions shorter than an n-gram repeat nothing.
///
/// # Source
/// Yeo et al. 2025, *Demystifying Long Chain-of-Thought Reasoning in LLMs*, appendix C.2,
/// [arXiv:2502.03373](https://arxiv.org/abs/2502.03373); TRL's `get_repetition_penalty_reward`, which gives the
/// penalty as a negative number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepetitionPenalty {
    /// How many follow each other in an n-gram; TRL's default is 3.
    pub ngram: NonZeroUsize,
    /// The size of the largest penalty; TRL's default is 1.
    pub max_penalty: NonNegative,
    /// What the n-grams are made of.
    pub unit: RepetitionUnit,
}

/// What n-grams are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepetitionUnit {
    /// Tokens, as they were sampled; a rollout without tokens is unscored.
    #[default]
    Tokens,
    /// Words between white space, upper and lower case alike.
    Words,
}

impl Default for RepetitionPenalty {
    fn default() -> Self {
        Self {
            ngram: NonZeroUsize::MIN.saturating_add(2),
            max_penalty: NonNegative::new(1.0),
            unit: RepetitionUnit::Tokens,
        }
    }
}

impl RepetitionPenalty {
    fn penalty<T: Eq + Hash>(&self, items: &[T]) -> f64 {
        if items.len() < self.ngram.get() {
            return 0.0;
        }
        let total = items.len() - self.ngram.get() + 1;
        let unique = items.windows(self.ngram.get()).collect::<HashSet<_>>().len();
        let repeated = 1.0 - unique as f64 / total as f64;
        // Not −0, which reads oddly in a log.
        if unique == total { 0.0 } else { -repeated * self.max_penalty.get() }
    }
}

impl RewardFn for RepetitionPenalty {
    fn name(&self) -> &'static str {
        "repetition"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let score = |rollout: &Rollout| match (self.unit, &rollout.tokens) {
            (RepetitionUnit::Tokens, Some(tokens)) => self.penalty(tokens).into(),
            (RepetitionUnit::Tokens, None) => Score::unscored("the rollout has no tokens"),
            (RepetitionUnit::Words, _) => {
                let text = rollout.completion.to_lowercase();
                self.penalty(&text.split_whitespace().collect::<Vec<_>>()).into()
            }
        };
        Ok(rollouts.iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values were computed with TRL 1.16.0.
    #[test]
    fn the_penalty_is_trls() {
        let tokens: [&[u32]; 6] = [
            &[1, 2, 3, 4],
            &[5, 5, 5, 5, 5],
            &[1, 2, 3, 1, 2, 3, 1],
            &[],
            &[1, 2],
            &[7, 8, 7, 8, 7, 8, 7, 8, 9],
        ];
        let rollouts = tokens.map(|tokens| Rollout::new("p", "c").with_tokens(tokens.to_vec()));
        for (ngram, max_penalty, expected) in [
            (3, 1.0, [0.0, -2.0 / 3.0, -0.4, 0.0, 0.0, -0.571_428_571_428_571_4]),
            (2, 1.0, [0.0, -0.75, -0.5, 0.0, 0.0, -0.625]),
            (1, 0.5, [0.0, -0.4, -0.285_714_285_714_285_7, 0.0, 0.0, -1.0 / 3.0]),
            (3, 2.5, [0.0, -5.0 / 3.0, -1.0, 0.0, 0.0, -1.428_571_428_571_428_4]),
        ] {
            let ngram = NonZeroUsize::new(ngram).unwrap();
            let max_penalty = NonNegative::new(max_penalty);
            let mut reward = RepetitionPenalty { ngram, max_penalty, ..RepetitionPenalty::default() };
            for (score, expected) in reward.score(&rollouts).unwrap().iter().zip(expected) {
                assert!((score.value().unwrap() - expected).abs() < 1e-12, "{score:?} {expected}");
            }
        }
    }

    #[test]
    fn words_can_be_counted_instead() {
        let unit = RepetitionUnit::Words;
        let ngram = NonZeroUsize::MIN;
        let mut reward = RepetitionPenalty { ngram, unit, ..RepetitionPenalty::default() };
        let scores = reward.score(&[Rollout::new("p", "No, no, No, no,")]).unwrap();
        assert_eq!(scores, [Score::Value(-0.75)]);
        let tokens = RepetitionPenalty::default().score(&[Rollout::new("p", "x")]).unwrap();
        assert!(tokens[0].is_unscored());
    }
}
