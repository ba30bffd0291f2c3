//! One sequence while it grows.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Choice, GenerateError, GenerationConfig, Request, StopAt};
use crate::logprob::Support;
use crate::tokenizer::{DecodeStream, SpecialTokenText, Tokenizer};

/// A finished continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The new tokens; a stop token that ended it is the last.
    pub tokens: Vec<u32>,
    /// The log-probability of each token under the distribution that it was drawn from.
    pub log_probs: Vec<f32>,
    /// The tokens that could have been drawn in place of each, where the configuration [asks for
    /// them](GenerationConfig::keep_supports).
    pub supports: Option<Vec<Support>>,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With this stop token.
    StopToken(u32),
    /// With this stop string, by its place in [`StopAt::strings`].
    StopString(usize),
    /// It has as many tokens as were asked for.
    Length,
    /// The model's context is full.
    Context,
    /// The caller asked for no more.
    Cancelled,
}

/// A continuation in the making.
#[derive(Debug)]
pub(super) struct Row {
    /// Which prompt, and which sample of it.
    pub(super) prompt: usize,
    pub(super) sample: usize,
    /// Prompt and new tokens.
    pub(super) history: Vec<u32>,
    prompt_length: usize,
    max_new_tokens: usize,
    log_probs: Vec<f32>,
    supports: Option<Vec<Support>>,
    pub(super) rng: ChaCha8Rng,
    text: Option<StopText>,
    pub(super) finish: Option<Finish>,
}

impl Row {
    pub(super) fn new(
        (prompt, sample): (usize, usize),
        request: &Request<'_>,
        config: &GenerationConfig,
        tokenizer: Option<&Tokenizer>,
    ) -> Self {
        // A stream of its own for each sample: what the others do changes nothing.
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream((u64::from(request.stream) << 32) | sample as u64);
        let text = tokenizer.filter(|_| !config.stop.strings.is_empty()).map(StopText::new);
        let history = request.tokens.to_vec();
        Self {
            prompt,
            sample,
            prompt_length: history.len(),
            history,
            max_new_tokens: request.max_new_tokens.get(),
            log_probs: Vec::new(),
            supports: config.keep_supports.then(Vec::new),
            rng,
            text,
            finish: None,
        }
    }

    /// Takes the next token and decides whether it is the last.
    pub(super) fn push(
        &mut self,
        Choice { token, log_probability }: Choice,
        support: Option<Support>,
        config: &GenerationConfig,
        context: usize,
    ) -> Result<(), GenerateError> {
        self.history.push(token);
        self.log_probs.push(log_probability);
        if let Some(supports) = &mut self.supports {
            supports.extend(support);
        }
        let stopped_by_text = match &mut self.text {
            Some(text) => text.push(token, &config.stop)?,
            None => None,
        };
        self.finish = if config.stop.tokens.contains(&token) {
            Some(Finish::StopToken(token))
        } else if let Some(index) = stopped_by_text {
            Some(Finish::StopString(index))
        } else if self.log_probs.len() >= self.max_new_tokens {
            Some(Finish::Length)
        } else if self.history.len() >= context {
            Some(Finish::Context)
        } else {
            None
        };
        Ok(())
    }

    pub(super) fn finish(self) -> Generation {
        Generation {
            tokens: self.history[self.prompt_length..].to_vec(),
            log_probs: self.log_probs,
            supports: self.supports,
            finish: self.finish.unwrap_or(Finish::Cancelled),
        }
    }
}

/// Looks for stop strings in the text as it becomes certain.
#[derive(Debug)]
struct StopText {
    stream: DecodeStream,
    tail: String,
}

impl StopText {
    fn new(tokenizer: &Tokenizer) -> Self {
        Self { stream: tokenizer.decode_stream(SpecialTokenText::Keep), tail: String::new() }
    }

    fn push(&mut self, token: u32, stop: &StopAt) -> Result<Option<usize>, GenerateError> {
        self.tail.push_str(&self.stream.push(token).map_err(GenerateError::Text)?);
        let found = stop.strings.iter().position(|string| self.tail.contains(string.as_str()));
        // Only what a later piece can complete needs to be kept.
        let longest = stop.strings.iter().map(String::len).max().unwrap_or(0);
        let mut cut = self.tail.len().saturating_sub(longest);
        while !self.tail.is_char_boundary(cut) {
            cut -= 1;
        }
        self.tail.drain(..cut);
        Ok(found)
    }
}
