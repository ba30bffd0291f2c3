//! Answers that must be the right text.

use serde::{Deserialize, Serialize};

use super::{AnswerFormat, Truth};
use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// 1 if the answer is the right one, letter by letter after normalisation, else 0.
///
/// A row without the right answer is unscored; a completion without an answer is wrong.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactMatch {
    /// Where the right answer is.
    pub truth: Truth,
    /// How the answer is found in the completion.
    pub answer: AnswerFormat,
    /// What is done to both before they are compared, in this order.
    pub normalize: Vec<Normalization>,
}

/// A difference that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Upper and lower case are the same.
    Case,
    /// ASCII punctuation is left out.
    Punctuation,
    /// The words a, an and the are left out.
    Articles,
    /// White space is one space, and none at the ends.
    WhiteSpace,
}

impl Normalization {
    /// What the evaluation of `SQuAD` does.
    pub const SQUAD: [Self; 4] = [Self::Case, Self::Punctuation, Self::Articles, Self::WhiteSpace];

    /// The text without this difference.
    #[must_use]
    pub fn apply(self, text: &str) -> String {
        match self {
            Self::Case => text.to_lowercase(),
            Self::Punctuation => text.chars().filter(|character| !character.is_ascii_punctuation()).collect(),
            Self::Articles => words_without(text, &["a", "an", "the"]),
            Self::WhiteSpace => words_without(text, &[]),
        }
    }
}

impl RewardFn for ExactMatch {
    fn name(&self) -> &'static str {
        "exact_match"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let normal =
            |text: &str| self.normalize.iter().fold(text.to_string(), |text, rule| rule.apply(&text));
        Ok(self.truth.judge(&self.answer, rollouts, |truth, answer| Ok(normal(truth) == normal(answer))))
    }
}

fn words_without(text: &str, left_out: &[&str]) -> String {
    text.split_whitespace().filter(|word| !left_out.contains(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{super::Extraction, *};

    fn values(reward: &mut ExactMatch, answers: &[&str]) -> Vec<Option<f64>> {
        let rollouts: Vec<Rollout> =
            answers.iter().map(|a| Rollout::new("p", *a).with_column("answer", "The Nile")).collect();
        reward.score(&rollouts).unwrap().iter().map(Score::value).collect()
    }

    #[test]
    fn normalisation_decides_what_counts() {
        let answers = ["The Nile", " The Nile\n", "the nile", "Nile.", "Danube"];
        let plain = values(&mut ExactMatch::default(), &answers);
        assert_eq!(plain, [1.0, 1.0, 0.0, 0.0, 0.0].map(Some));
        let normalize = Normalization::SQUAD.to_vec();
        let mut squad = ExactMatch { normalize, ..ExactMatch::default() };
        assert_eq!(values(&mut squad, &answers), [1.0, 1.0, 1.0, 1.0, 0.0].map(Some));
    }

    #[test]
    fn no_answer_is_wrong_and_no_truth_is_unscored() {
        let answer = AnswerFormat { extract: Extraction::Boxed, ..AnswerFormat::default() };
        let mut reward = ExactMatch { answer, ..ExactMatch::default() };
        assert_eq!(values(&mut reward, &[r"\boxed{The Nile}", "The Nile"]), [Some(1.0), Some(0.0)]);
        let scores = reward.score(&[Rollout::new("p", "x")]).unwrap();
        assert_eq!(scores, [Score::unscored("the row has no column `answer`")]);
        let extract = Extraction::Boxed;
        reward.truth.extract = extract;
        assert_eq!(values(&mut reward, &["x"]), [None]);
    }
}
