//! How terms of tokens become one number.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// What an update, of one or several micro-batches, is averaged over.
///
/// Every share of the update is divided by the totals of the whole, so that it does not matter how it is cut. [`Accumulation`]
/// has other ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTotals {
    /// Sequences of the whole update, also those without a token that counts (a truncated one that is masked). Leave them
    /// out where they must not dilute the others' mean.
    pub sequences: usize,
    /// Action tokens of the whole update; no whole number where it is an average over updates.
    pub tokens: f64,
    /// Those tokens of the whole update that are [kept](crate::PolicyTokens::is_kept): what an entropy bonus is averaged over.
    pub kept_tokens: usize,
}

impl StepTotals {
    /// Totals of an update that keeps all of its tokens.
    #[must_use]
    pub fn new(sequences: usize, tokens: usize) -> Self {
        Self { sequences, tokens: tokens as f64, kept_tokens: tokens }
    }

    /// Totals of an update of sequences with so many tokens each, all of them kept.
    #[must_use]
    pub fn of(counts: &[usize]) -> Self {
        Self::new(counts.len(), counts.iter().sum())
    }
}

/// What the micro-batches of an update are divided by, so that they add up to its loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accumulation {
    /// By the totals of the whole update: how it is cut changes nothing.
    #[default]
    Exact,
    /// Each by its own totals, and then by their number: tokens of a micro-batch with few of them weigh more. A selection of
    /// tokens, an entropy bonus and what is reported are of each micro-batch and then averaged as well. TRL has it so
    /// (`grpo_trainer.py:3129`), which for token means (BNPO) is [known to be wrong](https://github.com/huggingface/trl/issues/3021).
    MicroBatchMean,
    /// As `MicroBatchMean`, but a mean over tokens is one over the completions of all updates that are made with them,
    /// divided by the number of these updates: TRL's DAPO, CISPO and VESPO.
    RolloutMean,
}

/// What one token weighs in the loss. Below, `|y|` is the number of tokens of its sequence, `S` of sequences and `T` of tokens
/// in the whole update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Aggregation {
    /// `1/(S·|y|)`: the mean of each sequence's mean. GRPO ([arXiv:2402.03300](https://arxiv.org/abs/2402.03300)), which favours
    /// short answers that are right and long ones that are wrong.
    SequenceMean {},
    /// `1/T`: every token weighs the same. DAPO ([arXiv:2503.14476](https://arxiv.org/abs/2503.14476)), BNPO
    /// ([arXiv:2506.02864](https://arxiv.org/abs/2506.02864)).
    TokenMean {},
    /// `1/S`: the mean of each sequence's sum. LUSPO ([arXiv:2602.05261](https://arxiv.org/abs/2602.05261)), for ratios of
    /// sequences; REINFORCE.
    SequenceSum {},
    /// `1/(S·L)` with a constant `L`: no bias toward any length. Dr. GRPO
    /// ([arXiv:2503.20783](https://arxiv.org/abs/2503.20783)).
    FixedLength {
        /// `L`, the greatest length that a completion may have.
        max_completion_length: NonZeroUsize,
    },
}

impl Aggregation {
    /// The weight of each token of sequences with so many tokens each, one number a token.
    ///
    /// # Panics
    /// If the update has fewer sequences than these, or no token.
    #[must_use]
    pub fn weights(self, counts: &[usize], totals: StepTotals) -> Vec<f32> {
        let tokens: usize = counts.iter().sum();
        assert!(tokens == 0 || totals.tokens > 0.0, "an update with a part that has tokens has tokens");
        let filled = counts.iter().filter(|&&count| count > 0).count();
        assert!(
            filled <= totals.sequences,
            "the update's total of sequences is less than that of a part of it"
        );
        let sequences = totals.sequences as f64;
        counts
            .iter()
            .flat_map(|&count| {
                let weight = match self {
                    Self::SequenceMean {} => 1.0 / (sequences * count.max(1) as f64),
                    Self::TokenMean {} => 1.0 / totals.tokens,
                    Self::SequenceSum {} => 1.0 / sequences,
                    Self::FixedLength { max_completion_length } => {
                        1.0 / (sequences * max_completion_length.get() as f64)
                    }
                };
                std::iter::repeat_n(weight as f32, count)
            })
            .collect()
    }
}

impl Default for Aggregation {
    fn default() -> Self {
        Self::TokenMean {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_weigh_what_their_aggregation_says() {
        let totals = StepTotals::new(4, 10);
        let of = |aggregation: Aggregation| aggregation.weights(&[1, 0, 2], totals);
        assert_eq!(of(Aggregation::SequenceMean {}), [0.25, 0.125, 0.125]);
        assert_eq!(of(Aggregation::TokenMean {}), [0.1; 3]);
        assert_eq!(of(Aggregation::SequenceSum {}), [0.25; 3]);
        let max_completion_length = NonZeroUsize::new(5).unwrap();
        assert_eq!(of(Aggregation::FixedLength { max_completion_length }), [0.05; 3]);
    }

    #[test]
    fn a_configuration_names_the_length() {
        let parsed: Aggregation =
            toml::from_str("kind = \"fixed_length\"\nmax_completion_length = 256").unwrap();
        let max_completion_length = NonZeroUsize::new(256).unwrap();
        assert_eq!(parsed, Aggregation::FixedLength { max_completion_length });
        assert!(toml::from_str::<Aggregation>("kind = \"token_mean\"\nmax_completion_length = 256").is_err());
    }
}
