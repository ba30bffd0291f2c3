//! Batched generation with a KV cache.
//!
//! Prompts of a batch are read without padding, each once, however many samples it has. Every step costs one forward pass
//! over the sequences that still grow and one read of their logits; a finished sequence leaves the batch at once.

use std::{num::NonZeroUsize, ops::ControlFlow};

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::{
    Choice, GenerationConfig, SamplingError,
    row::{Finish, Generation, Row},
};
use crate::{
    causal_lm::{Cache, IncrementalLm, TokenBatch, index_tensor},
    logprob::Support,
    tokenizer::{Tokenizer, TokenizerError},
};

/// A token was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// Which prompt.
    pub prompt: usize,
    /// Which of its samples.
    pub sample: usize,
    /// The token.
    pub token: u32,
    /// Its log-probability under the distribution that it was drawn from.
    pub log_prob: f32,
    /// Set with a sequence's last token.
    pub finish: Option<Finish>,
}

/// A prompt with terms of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is continued.
    pub tokens: &'a [u32],
    /// Which of the seed's streams of random numbers its samples draw from: with the same one it is continued in the same
    /// way, whatever else is generated with it.
    pub stream: u32,
    /// Tokens a sample, at most.
    pub max_new_tokens: NonZeroUsize,
}

/// Prompts could not be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A prompt has no tokens.
    #[error(
        "prompt {prompt} is empty: a model continues at least one token, such as its beginning-of-text token"
    )]
    EmptyPrompt {
        /// Its place in the list.
        prompt: usize,
    },
    /// A prompt fills the context.
    #[error(
        "prompt {prompt} has {tokens} tokens, which leaves no room in the model's context of {limit}: shorten it"
    )]
    PromptTooLong {
        /// Its place in the list.
        prompt: usize,
        /// Its length.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
    /// A prompt has a token that the model does not know.
    #[error(
        "prompt {prompt} has token {token}, the model knows {vocab}: the tokenizer belongs to another model"
    )]
    UnknownToken {
        /// Its place in the list.
        prompt: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// Stop strings need a tokenizer.
    #[error("`stop.strings` needs a tokenizer: give one, or stop at tokens alone")]
    StopStringsWithoutTokenizer,
    /// A stop string is empty.
    #[error("`stop.strings` has an empty string, which every text contains")]
    EmptyStopString,
    /// No token could be chosen.
    #[error(
        "prompt {prompt}, sample {sample}: no token can be chosen at position {position} of the sequence"
    )]
    Sampling {
        /// Which prompt.
        prompt: usize,
        /// Which of its samples.
        sample: usize,
        /// Position in the sequence, prompt included; the first is 0.
        position: usize,
        /// Why.
        #[source]
        source: SamplingError,
    },
    /// New tokens could not be decoded to look for stop strings.
    #[error("cannot look for stop strings")]
    Text(#[source] TokenizerError),
    /// The device failed.
    #[error("cannot read logits from the device: {reason}")]
    Device {
        /// What it reported.
        reason: String,
    },
}

/// Continues prompts. Returns the samples of each, in order.
///
/// `tokenizer` is needed where there are stop strings.
///
/// # Errors
/// If a prompt is empty, too long or of another vocabulary, or the model's logits are not finite.
pub fn generate<M: IncrementalLm>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<Vec<Generation>>, GenerateError> {
    generate_streaming(model, prompts, config, tokenizer, &mut |_| ControlFlow::Continue(()))
}

/// Continues prompts and shows every token as it is chosen; `on_token` may end that sequence.
///
/// # Errors
/// If a prompt is empty, too long or of another vocabulary, or the model's logits are not finite.
pub fn generate_streaming<M: IncrementalLm>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
    on_token: &mut dyn FnMut(Sampled) -> ControlFlow<()>,
) -> Result<Vec<Vec<Generation>>, GenerateError> {
    let numbered = prompts.iter().enumerate();
    let requests: Vec<Request<'_>> = numbered
        .map(|(stream, tokens)| Request {
            tokens,
            stream: stream as u32,
            max_new_tokens: config.max_new_tokens,
        })
        .collect();
    run(model, &requests, config, tokenizer, on_token)
}

/// Continues prompts that each have terms of their own, which count in place of the configuration's. Returns the samples
/// of each, in order.
///
/// # Errors
/// If a prompt is empty, too long or of another vocabulary, or the model's logits are not finite.
pub fn generate_requests<M: IncrementalLm>(
    model: &M,
    requests: &[Request<'_>],
    config: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<Vec<Generation>>, GenerateError> {
    run(model, requests, config, tokenizer, &mut |_| ControlFlow::Continue(()))
}

fn run<M: IncrementalLm>(
    model: &M,
    requests: &[Request<'_>],
    config: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
    on_token: &mut dyn FnMut(Sampled) -> ControlFlow<()>,
) -> Result<Vec<Vec<Generation>>, GenerateError> {
    check(model, requests, config, tokenizer)?;
    let model = model.valid();
    let at_once = (config.batch_size.get() / config.samples.get()).max(1);
    let mut finished: Vec<Vec<Generation>> = Vec::with_capacity(requests.len());
    for (batch, requests) in requests.chunks(at_once).enumerate() {
        let rows = |index: usize| {
            let id = move |sample| (batch * at_once + index, sample);
            let request = &requests[index];
            (0..config.samples.get()).map(move |sample| Row::new(id(sample), request, config, tokenizer))
        };
        let rows: Vec<Row> = (0..requests.len()).flat_map(rows).collect();
        let mut done = run_batch(&model, requests, rows, config, on_token)?;
        done.sort_by_key(|row| (row.prompt, row.sample));
        let mut done = done.into_iter().map(Row::finish);
        finished.extend(requests.iter().map(|_| done.by_ref().take(config.samples.get()).collect()));
    }
    Ok(finished)
}

fn check<M: IncrementalLm>(
    model: &M,
    requests: &[Request<'_>],
    config: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), GenerateError> {
    if !config.stop.strings.is_empty() && tokenizer.is_none() {
        return Err(GenerateError::StopStringsWithoutTokenizer);
    }
    if config.stop.strings.iter().any(String::is_empty) {
        return Err(GenerateError::EmptyStopString);
    }
    let (limit, vocab) = (model.max_positions(), model.vocab_size());
    for (prompt, Request { tokens, .. }) in requests.iter().enumerate() {
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt { prompt });
        }
        if tokens.len() >= limit {
            return Err(GenerateError::PromptTooLong { prompt, tokens: tokens.len(), limit });
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(GenerateError::UnknownToken { prompt, token, vocab });
        }
    }
    Ok(())
}

/// Grows the samples of some prompts until all are finished. `rows`: the samples of each prompt in turn.
fn run_batch<M: IncrementalLm>(
    model: &M,
    requests: &[Request<'_>],
    mut rows: Vec<Row>,
    config: &GenerationConfig,
    on_token: &mut dyn FnMut(Sampled) -> ControlFlow<()>,
) -> Result<Vec<Row>, GenerateError> {
    let prompts: Vec<&[u32]> = requests.iter().map(|request| request.tokens).collect();
    let batch = TokenBatch::from_sequences(&prompts);
    let (hidden, mut cache) = model.prefill(&batch);
    let last = batch.starts().into_iter().zip(batch.lengths()).map(|(start, length)| start + length - 1);
    let mut hidden = hidden.select(0, index_tensor(last, &model.device()));
    // Which line of the logits each row reads: all samples of a prompt start from the same.
    let mut lines: Vec<usize> = (0..rows.len()).map(|row| row / config.samples.get()).collect();
    let mut finished = Vec::new();
    loop {
        choose(model, hidden, &lines, &mut rows, config, on_token)?;
        let going: Vec<bool> = rows.iter().map(|row| row.finish.is_none()).collect();
        let kept: Vec<usize> =
            lines.iter().zip(&going).filter(|(_, going)| **going).map(|(&line, _)| line).collect();
        let (still, done) = rows.into_iter().partition(|row: &Row| row.finish.is_none());
        rows = still;
        finished.extend::<Vec<Row>>(done);
        if rows.is_empty() {
            return Ok(finished);
        }
        cache.select(&kept);
        let newest: Vec<u32> = rows.iter().filter_map(|row| row.history.last().copied()).collect();
        hidden = model.extend(&newest, &mut cache);
        lines = (0..rows.len()).collect();
    }
}

/// Chooses the next token of every row. `hidden`: `[lines, hidden]`.
fn choose<M: IncrementalLm>(
    model: &M,
    hidden: Tensor<2>,
    lines: &[usize],
    rows: &mut [Row],
    config: &GenerationConfig,
    on_token: &mut dyn FnMut(Sampled) -> ControlFlow<()>,
) -> Result<(), GenerateError> {
    let vocab = model.vocab_size();
    let data =
        model.logits(hidden).try_into_data().map_err(|e| GenerateError::Device { reason: e.to_string() })?;
    let logits: &[f32] = data.as_slice().map_err(|e| GenerateError::Device { reason: format!("{e:?}") })?;
    let choices: Vec<Result<(Choice, Option<Support>), SamplingError>> = rows
        .par_iter_mut()
        .zip(lines)
        .map(|(row, line)| {
            let logits = &logits[line * vocab..(line + 1) * vocab];
            if config.keep_supports {
                let chosen = config.sampling.choose_with_support(logits, &row.history, &mut row.rng);
                return chosen.map(|(choice, support)| (choice, Some(support)));
            }
            Ok((config.sampling.choose(logits, &row.history, &mut row.rng)?, None))
        })
        .collect();
    for (row, choice) in rows.iter_mut().zip(choices) {
        let position = row.history.len();
        let (choice, support) = choice.map_err(|source| GenerateError::Sampling {
            prompt: row.prompt,
            sample: row.sample,
            position,
            source,
        })?;
        let Choice { token, log_probability: log_prob } = choice;
        row.push(choice, support, config, model.max_positions())?;
        let (prompt, sample, finish) = (row.prompt, row.sample, row.finish);
        if on_token(Sampled { prompt, sample, token, log_prob, finish }).is_break() && row.finish.is_none() {
            row.finish = Some(Finish::Cancelled);
        }
    }
    Ok(())
}
