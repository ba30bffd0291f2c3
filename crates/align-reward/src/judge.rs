//! Which of two answers is better.

mod both_orders;
mod from_reward;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use both_orders::{BothOrders, PositionBias};
pub use from_reward::RewardJudge;
use serde::{Deserialize, Serialize};

use crate::{
    function::{RewardError, panic_message},
    rollout::Rollout,
};

/// Compares answers in pairs: reward models, language models, rules, people.
///
/// Call it through [`judge_pairs`], which does not trust it.
pub trait PairwiseJudge {
    /// What it is called in logs and errors.
    fn name(&self) -> &str;

    /// One verdict per comparison, in order.
    ///
    /// # Errors
    /// If nothing can be judged; a single comparison of which nothing can be said is [`Verdict::Unjudged`].
    fn judge(&mut self, comparisons: &[Comparison]) -> Result<Vec<Verdict>, JudgeError>;
}

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The first, with the prompt.
    pub a: Rollout,
    /// The second, with the same prompt.
    pub b: Rollout,
}

/// What a judge says of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The probability that `a` is better than `b`, from 0 to 1; a tie is one half.
    Preference(f64),
    /// There is none.
    Unjudged {
        /// Why, for the reader of a log.
        reason: String,
    },
}

/// A judge failed as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// It returned too few or too many verdicts.
    #[error("judge `{judge}` returned {found} verdicts for {expected} comparisons")]
    WrongCount {
        /// The judge's name.
        judge: String,
        /// How many comparisons there are.
        expected: usize,
        /// How many verdicts came.
        found: usize,
    },
    /// It panicked.
    #[error("judge `{judge}` panicked: {message}")]
    Panicked {
        /// The judge's name.
        judge: String,
        /// What the panic said.
        message: String,
    },
    /// It could not do its work.
    #[error("judge `{judge}` failed: {reason}")]
    Failed {
        /// The judge's name.
        judge: String,
        /// Why.
        reason: String,
    },
    /// The reward behind it failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
}

impl Comparison {
    /// Two answers to a text.
    pub fn new(prompt: &str, a: impl Into<String>, b: impl Into<String>) -> Self {
        Self { a: Rollout::new(prompt, a), b: Rollout::new(prompt, b) }
    }

    /// The same with the answers exchanged.
    #[must_use]
    pub fn swapped(&self) -> Self {
        Self { a: self.b.clone(), b: self.a.clone() }
    }
}

impl Verdict {
    /// No verdict, for this reason.
    pub fn unjudged(reason: impl Into<String>) -> Self {
        Self::Unjudged { reason: reason.into() }
    }

    /// The probability that `a` is better, if there is a verdict.
    #[must_use]
    pub fn preference(&self) -> Option<f64> {
        match self {
            Self::Preference(probability) => Some(*probability),
            Self::Unjudged { .. } => None,
        }
    }
}

/// A number from 0 to 1 is a preference, any other is none.
impl From<f64> for Verdict {
    fn from(probability: f64) -> Self {
        if (0.0..=1.0).contains(&probability) {
            Self::Preference(probability)
        } else {
            Self::unjudged(format!("{probability} is no probability"))
        }
    }
}

/// Asks a judge that may be wrong: it may panic, return too few verdicts, or numbers that are no probabilities.
///
/// # Errors
/// What the judge says; [`JudgeError::Panicked`]; [`JudgeError::WrongCount`].
pub fn judge_pairs<J: PairwiseJudge + ?Sized>(
    judge: &mut J,
    comparisons: &[Comparison],
) -> Result<Vec<Verdict>, JudgeError> {
    if comparisons.is_empty() {
        return Ok(Vec::new());
    }
    let result = catch_unwind(AssertUnwindSafe(|| judge.judge(comparisons)));
    let verdicts = result.map_err(|panic| JudgeError::Panicked {
        judge: judge.name().into(),
        message: panic_message(&*panic),
    })??;
    if verdicts.len() != comparisons.len() {
        let (expected, found) = (comparisons.len(), verdicts.len());
        return Err(JudgeError::WrongCount { judge: judge.name().into(), expected, found });
    }
    let checked = |verdict| match verdict {
        Verdict::Preference(probability) => Verdict::from(probability),
        unjudged @ Verdict::Unjudged { .. } => unjudged,
    };
    Ok(verdicts.into_iter().map(checked).collect())
}

impl<J: PairwiseJudge + ?Sized> PairwiseJudge for Box<J> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn judge(&mut self, comparisons: &[Comparison]) -> Result<Vec<Verdict>, JudgeError> {
        (**self).judge(comparisons)
    }
}

/// A closure over one comparison that gives P(a ≻ b) is a judge.
pub fn judge_fn<F: FnMut(&Comparison) -> Verdict>(name: impl Into<String>, function: F) -> JudgeFn<F> {
    JudgeFn { name: name.into(), function }
}

/// See [`judge_fn`].
pub struct JudgeFn<F> {
    name: String,
    function: F,
}

impl<F: FnMut(&Comparison) -> Verdict> PairwiseJudge for JudgeFn<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&mut self, comparisons: &[Comparison]) -> Result<Vec<Verdict>, JudgeError> {
        Ok(comparisons.iter().map(|comparison| (self.function)(comparison)).collect())
    }
}

impl<F> std::fmt::Debug for JudgeFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JudgeFn").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Short;
    impl PairwiseJudge for Short {
        fn name(&self) -> &'static str {
            "short"
        }
        fn judge(&mut self, _: &[Comparison]) -> Result<Vec<Verdict>, JudgeError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn bad_judges_are_found_out() {
        let pairs = [Comparison::new("p", "a", "b"), Comparison::new("p", "b", "a")];
        let mut odd = judge_fn("odd", |_| Verdict::Preference(1.5));
        assert_eq!(judge_pairs(&mut odd, &pairs).unwrap()[0], Verdict::unjudged("1.5 is no probability"));
        let mut nan = judge_fn("nan", |_| Verdict::from(f64::NAN));
        assert_eq!(judge_pairs(&mut nan, &pairs).unwrap()[1].preference(), None);
        let mut bad = judge_fn("bad", |_| panic!("oh"));
        let error = judge_pairs(&mut bad, &pairs).unwrap_err();
        assert_eq!(error.to_string(), "judge `bad` panicked: oh");

        let error = judge_pairs(&mut Short, &pairs).unwrap_err();
        assert_eq!(error.to_string(), "judge `short` returned 0 verdicts for 2 comparisons");
    }
}
