//! Solutions as tokens, and what their steps' judgements come to.

use align_model::{
    data::StepwiseRecord,
    tokenizer::{SpecialTokens, Tokenizer, TokenizerError},
};
use serde::{Deserialize, Serialize};

/// A solution, and where its steps end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessExample {
    /// The prompt and the steps.
    pub tokens: Vec<u32>,
    /// The labelled steps; at least one.
    pub labels: Vec<StepLabel>,
}

impl AsRef<Self> for ProcessExample {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// What a step is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepLabel {
    /// The index of the step's last token.
    pub position: usize,
    /// What the model should say there.
    pub target: StepTarget,
}

/// What a model should say of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepTarget {
    /// A class; 0 is wrong and 1 right.
    Class(usize),
    /// A probability for each class, such as the shares of completions from this step on that fail and that succeed.
    Distribution(Vec<f32>),
}

impl StepTarget {
    /// One probability for each of so many classes.
    pub(super) fn probabilities(&self, classes: usize) -> Vec<f32> {
        match self {
            Self::Class(right) => (0..classes).map(|class| f32::from(u8::from(class == *right))).collect(),
            Self::Distribution(probabilities) => probabilities.clone(),
        }
    }
}

/// Which steps carry a label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelOn {
    /// All. TRL's default.
    #[default]
    EveryStep,
    /// The last one. TRL's `train_on_last_step_only`.
    LastStep,
}

/// Turns records into examples, as TRL's `PRMTrainer` does: the beginning-of-text token if the tokenizer has one, the
/// prompt, and each step with the separator behind it, all tokenised by themselves; a step's label stands at its last
/// token, which is the separator's.
#[derive(Debug)]
pub struct ProcessTokenizer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What ends a step.
    pub step_separator: &'a str,
    /// Which steps carry a label.
    pub label_on: LabelOn,
    /// Tokens of a solution with its prompt, at most.
    pub max_length: usize,
}

/// A record became no example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessLeftOut {
    /// No labelled step ends within the allowed length.
    NoLabelLeft,
}

impl ProcessTokenizer<'_> {
    /// Turns a record into an example, cut at the allowed length, and says how many labels were cut off.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn example(
        &self,
        record: &StepwiseRecord,
    ) -> Result<(Result<ProcessExample, ProcessLeftOut>, usize), TokenizerError> {
        let encode = |text: &str| self.tokenizer.encode(text, SpecialTokens::Omit);
        let mut tokens: Vec<u32> = self.tokenizer.bos_id().into_iter().collect();
        tokens.extend(encode(&record.prompt)?);
        let separator = encode(self.step_separator)?;
        let last = record.completions.len().saturating_sub(1);
        let mut labels = Vec::new();
        for (step, (completion, &is_right)) in record.completions.iter().zip(&record.labels).enumerate() {
            tokens.extend(encode(completion)?);
            tokens.extend(&separator);
            let is_labelled = self.label_on == LabelOn::EveryStep || step == last;
            if let (true, Some(position)) = (is_labelled, tokens.len().checked_sub(1)) {
                labels.push(StepLabel { position, target: StepTarget::Class(usize::from(is_right)) });
            }
        }
        let all = labels.len();
        tokens.truncate(self.max_length);
        labels.retain(|label| label.position < tokens.len());
        let cut = all - labels.len();
        let example = if labels.is_empty() {
            Err(ProcessLeftOut::NoLabelLeft)
        } else {
            Ok(ProcessExample { tokens, labels })
        };
        Ok((example, cut))
    }
}

/// What the probabilities that steps are right make of the whole solution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAggregation {
    /// Their product: the probability that all are right. Lightman et al. 2023,
    /// [arXiv:2305.20050](https://arxiv.org/abs/2305.20050).
    #[default]
    Product,
    /// The lowest. Math-Shepherd, [arXiv:2312.08935](https://arxiv.org/abs/2312.08935).
    Minimum,
    /// Their mean.
    Mean,
    /// The last.
    Last,
}

impl StepAggregation {
    /// The solution's score; `None` if it has no steps.
    #[must_use]
    pub fn score(self, steps: &[f64]) -> Option<f64> {
        let last = *steps.last()?;
        Some(match self {
            Self::Product => steps.iter().product(),
            // A step that could not be judged is no judgement of the whole.
            Self::Minimum if steps.iter().any(|step| step.is_nan()) => f64::NAN,
            Self::Minimum => steps.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Mean => steps.iter().sum::<f64>() / steps.len() as f64,
            Self::Last => last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // nothing is rounded
    fn aggregations() {
        let steps = [0.5, 0.25, 0.75];
        let score = |how: StepAggregation| how.score(&steps).unwrap();
        assert_eq!(score(StepAggregation::Product), 0.093_75);
        assert_eq!(score(StepAggregation::Minimum), 0.25);
        assert_eq!(score(StepAggregation::Mean), 0.5);
        assert_eq!(score(StepAggregation::Last), 0.75);
        assert_eq!(StepAggregation::Mean.score(&[]), None);
        assert!(StepAggregation::Minimum.score(&[0.5, f64::NAN]).unwrap().is_nan());
    }
}
