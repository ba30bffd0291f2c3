//! From one row of logits to the next token: what `transformers` does in `generate`, in its order.

mod distribution;

use std::num::NonZeroUsize;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::logprob::Support;
use crate::number::{Positive, PositiveUnit, ProperFraction, UnitInterval};

pub use distribution::{Distribution, Kept};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// The rule itself.
    pub decoding: Decoding,
    /// Above 1, makes tokens of the history less likely: their logit is divided by it where positive and multiplied
    /// where negative, once however often they occur. 1 changes nothing. Keskar et al. 2019 (arXiv:1909.05858).
    pub repetition_penalty: Positive,
    /// Forbids a token that would complete a run of so many tokens that the history already has.
    pub no_repeat_ngram_size: Option<NonZeroUsize>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            decoding: Decoding::default(),
            repetition_penalty: Positive::new(1.0),
            no_repeat_ngram_size: None,
        }
    }
}

/// The rule that picks a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Decoding {
    /// The token with the largest logit; of several, the one with the lowest id.
    Greedy,
    /// A token drawn from the model's distribution.
    Sample(Sampling),
}

impl Default for Decoding {
    fn default() -> Self {
        Self::Sample(Sampling::default())
    }
}

/// What is done to the distribution before a token is drawn from it, in the order of the fields. Each filter sees
/// what the one before left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits. 1 changes nothing.
    pub temperature: Positive,
    /// Keeps the so many largest logits, and those equal to the smallest of them.
    pub top_k: Option<NonZeroUsize>,
    /// Keeps the fewest tokens, most likely first, that have this much probability together. Of equally likely ones
    /// at the border the highest ids stay, as in `transformers`. Holtzman et al. 2020 (arXiv:1904.09751).
    pub top_p: Option<PositiveUnit>,
    /// Keeps tokens that have at least this share of the most likely one's probability. Nguyen et al. 2024
    /// (arXiv:2407.01082).
    pub min_p: Option<UnitInterval>,
    /// Keeps tokens whose surprise is nearest to the expected one until they have this much probability together.
    /// Meister et al. 2023 (arXiv:2202.00666).
    pub typical_p: Option<PositiveUnit>,
    /// Removes tokens less likely than this. Hewitt et al. 2022 (arXiv:2210.15191).
    pub epsilon_cutoff: Option<ProperFraction>,
    /// Removes tokens less likely than min(η, √η · exp(−entropy)). Hewitt et al. 2022 (arXiv:2210.15191).
    pub eta_cutoff: Option<ProperFraction>,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: Positive::new(1.0),
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            epsilon_cutoff: None,
            eta_cutoff: None,
        }
    }
}

/// No token can be chosen from a row of logits.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// The model computed something that is no number or infinite.
    #[error("the logit of token {token} is {value}: the model's weights or activations have overflowed")]
    NotFinite {
        /// The token's id.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token is forbidden.
    #[error("no token is allowed: every logit is -inf; loosen `no_repeat_ngram_size` or the mask of tokens")]
    NothingLeft,
}

/// The token that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its id.
    pub token: u32,
    /// Its log-probability under the distribution that it was chosen from, all filters applied; for greedy decoding,
    /// under the model's distribution after the penalties.
    pub log_probability: f32,
}

impl SamplingConfig {
    /// Chooses the token that follows.
    ///
    /// `logits` has one entry a token of the vocabulary; `-inf` forbids a token. `history` is the prompt and what was
    /// generated; ids beyond the vocabulary are passed over. Takes one number from `rng` to sample, none for greedy
    /// decoding.
    ///
    /// # Errors
    /// If a logit is NaN or `+inf`, or if no token is allowed.
    pub fn choose(
        &self,
        logits: &[f32],
        history: &[u32],
        rng: &mut ChaCha8Rng,
    ) -> Result<Choice, SamplingError> {
        match &self.decoding {
            Decoding::Greedy => self.greedy(logits, history),
            Decoding::Sample(_) => Ok(self.distribution(logits, history)?.draw(rng)),
        }
    }

    /// As [`choose`](Self::choose), with the tokens that could have been chosen. For greedy decoding, whose log-probability
    /// is the model's own, that is every token.
    ///
    /// # Errors
    /// If a logit is NaN or `+inf`, or if no token is allowed.
    pub fn choose_with_support(
        &self,
        logits: &[f32],
        history: &[u32],
        rng: &mut ChaCha8Rng,
    ) -> Result<(Choice, Support), SamplingError> {
        match &self.decoding {
            Decoding::Greedy => Ok((self.greedy(logits, history)?, Support::All)),
            Decoding::Sample(_) => {
                let distribution = self.distribution(logits, history)?;
                let kept = distribution.kept().map(|kept| kept.token);
                Ok((distribution.draw(rng), Support::of(kept, logits.len())))
            }
        }
    }

    /// The distribution that a token is drawn from. For greedy decoding, the model's after the penalties.
    ///
    /// # Errors
    /// If a logit is NaN or `+inf`, or if no token is allowed.
    pub fn distribution(&self, logits: &[f32], history: &[u32]) -> Result<Distribution, SamplingError> {
        let plain = Sampling::default();
        let sampling = match &self.decoding {
            Decoding::Greedy => &plain,
            Decoding::Sample(sampling) => sampling,
        };
        match self.penalised(logits, history) {
            Some(logits) => Distribution::new(&logits, sampling),
            None => Distribution::new(logits, sampling),
        }
    }

    fn greedy(&self, logits: &[f32], history: &[u32]) -> Result<Choice, SamplingError> {
        let penalised = self.penalised(logits, history);
        let logits = penalised.as_deref().unwrap_or(logits);
        let (token, largest) = largest(logits)?;
        let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(largest)).exp()).sum();
        Ok(Choice { token, log_probability: -total.ln() as f32 })
    }

    /// The logits after the penalties, where there are any.
    fn penalised(&self, logits: &[f32], history: &[u32]) -> Option<Vec<f32>> {
        let neutral = self.repetition_penalty == Positive::new(1.0) && self.no_repeat_ngram_size.is_none();
        if history.is_empty() || neutral {
            return None;
        }
        let penalty = self.repetition_penalty.get() as f32;
        let mut changed = logits.to_vec();
        for &token in history {
            // Always from the logit before, so that a token that occurs twice is not penalised twice.
            if let Some(&logit) = logits.get(token as usize) {
                changed[token as usize] = if logit < 0.0 { logit * penalty } else { logit / penalty };
            }
        }
        if let Some(size) = self.no_repeat_ngram_size {
            for token in completions(history, size.get()) {
                if let Some(logit) = changed.get_mut(token as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Some(changed)
    }
}

/// The tokens that followed in the history wherever its last `size` − 1 tokens stood before.
fn completions(history: &[u32], size: usize) -> impl Iterator<Item = u32> {
    let begun = &history[(history.len() + 1).saturating_sub(size)..];
    // A history shorter than the run it should have begun has nothing to complete.
    let complete = begun.len() + 1 == size;
    history.windows(size).filter(move |run| complete && run.starts_with(begun)).map(|run| run[run.len() - 1])
}

/// The first of the largest logits, as `torch.argmax` on a CPU gives it, and its value.
///
/// # Errors
/// If a logit is NaN or `+inf`, or if all are `-inf`.
pub fn largest(logits: &[f32]) -> Result<(u32, f32), SamplingError> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &value) in logits.iter().enumerate() {
        // One comparison in the ordinary case: neither NaN nor +inf is at most a finite maximum.
        if value <= best.1 {
            continue;
        }
        if value.is_nan() || value.is_infinite() {
            return Err(SamplingError::NotFinite { token: token as u32, value });
        }
        best = (token as u32, value);
    }
    if best.1 == f32::NEG_INFINITY { Err(SamplingError::NothingLeft) } else { Ok(best) }
}

#[cfg(test)]
mod tests;
