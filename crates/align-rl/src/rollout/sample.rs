//! Sampling groups of completions.

use align_model::{
    causal_lm::IncrementalLm,
    generate::{GenerateError, Generation, Request, generate_requests},
    tokenizer::{Tokenizer, TokenizerError},
};
use align_reward::rollout::Rollout;
use serde::{Deserialize, Serialize};

use super::{LongPrompt, PromptExample, RolloutConfig};
use crate::Trajectory;

/// A completion: for the policy to learn from, and for rewards to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampled {
    /// The tokens, as they were sampled.
    pub trajectory: Trajectory,
    /// What they say.
    pub rollout: Rollout,
}

/// What became of some prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollouts {
    /// A group of completions for each prompt that has any, in the prompts' order. A group's number is its prompt's place
    /// in the list.
    pub samples: Vec<Sampled>,
    /// Prompts without completions, in order.
    pub left_out: Vec<LeftOutPrompt>,
    /// Prompts of which only the end was read.
    pub cut_prompts: usize,
}

/// A prompt that has no completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOutPrompt {
    /// Its place in the list.
    pub prompt: usize,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why a prompt has no completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhyLeftOut {
    /// It has no tokens, and a model continues at least one.
    #[error("it has no tokens")]
    Empty,
    /// It is longer than the configuration allows.
    #[error("it has {tokens} tokens, more than `prompt_limit` allows: {limit}")]
    TooLong {
        /// Its length.
        tokens: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It leaves no room in the model's context.
    #[error("it has {tokens} tokens and fills the model's context of {limit}")]
    FillsContext {
        /// Its length.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
}

/// Numbers about rollouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutCounts {
    /// Completions.
    pub samples: usize,
    /// Tokens that the policy sampled.
    pub actions: usize,
    /// Completions that ended for want of room.
    pub truncated: usize,
    /// Completions that say nothing.
    pub empty: usize,
    /// Prompts without completions.
    pub left_out_prompts: usize,
    /// Prompts of which only the end was read.
    pub cut_prompts: usize,
}

/// Prompts could not be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloutError {
    /// Completions could not be sampled.
    #[error("completions cannot be sampled")]
    Generate(#[from] GenerateError),
    /// A completion could not be decoded.
    #[error("a completion of prompt {prompt} cannot be decoded")]
    Decode {
        /// The prompt's place in the list.
        prompt: usize,
        /// Why.
        #[source]
        source: TokenizerError,
    },
}

/// Continues prompts, several times each. The same seed gives the same completions; what becomes of a prompt depends on its
/// place in the list and, but for rounding, not on the other prompts.
///
/// A prompt is computed once for its whole group, and a finished completion leaves the batch. Without a tokenizer a
/// completion's text is the numbers of its tokens, separated by spaces.
///
/// # Errors
/// If a prompt has a token that the model does not know, logits are not finite, there are stop strings but no tokenizer,
/// or a completion cannot be decoded.
pub fn sample_rollouts<M: IncrementalLm>(
    policy: &M,
    prompts: &[PromptExample],
    config: &RolloutConfig,
    seed: u64,
    tokenizer: Option<&Tokenizer>,
) -> Result<Rollouts, RolloutError> {
    let mut rollouts = Rollouts::default();
    let mut requests: Vec<Request<'_>> = Vec::with_capacity(prompts.len());
    for (index, PromptExample { tokens, .. }) in prompts.iter().enumerate() {
        match room(tokens, config, policy.max_positions()) {
            Ok(kept) => {
                rollouts.cut_prompts += usize::from(kept.len() < tokens.len());
                let (stream, max_new_tokens) = (index as u32, config.max_new_tokens);
                requests.push(Request { tokens: kept, stream, max_new_tokens });
            }
            Err(why) => rollouts.left_out.push(LeftOutPrompt { prompt: index, why }),
        }
    }
    let generated = generate_requests(policy, &requests, &config.generation(seed), tokenizer);
    let generated = generated.map_err(|error| in_the_list(error, &requests))?;
    for (request, generations) in requests.iter().zip(generated) {
        let index = request.stream as usize;
        for generation in generations {
            let text = text(&generation, config, tokenizer);
            let text = text.map_err(|source| RolloutError::Decode { prompt: index, source })?;
            rollouts.samples.push(sampled(&prompts[index], request, generation, text));
        }
    }
    Ok(rollouts)
}

impl Rollouts {
    /// The same with groups that are numbered from `first` on, for those that are kept together with others.
    #[must_use]
    pub fn numbered_from(mut self, first: u64) -> Self {
        for Sampled { trajectory, rollout } in &mut self.samples {
            trajectory.group += first;
            rollout.group += first;
        }
        self
    }

    /// Numbers about them.
    #[must_use]
    pub fn counts(&self) -> RolloutCounts {
        let count = |what: fn(&Sampled) -> bool| self.samples.iter().filter(|sample| what(sample)).count();
        RolloutCounts {
            samples: self.samples.len(),
            actions: self.samples.iter().map(|sample| sample.trajectory.actions()).sum(),
            truncated: count(|sample| sample.trajectory.is_truncated()),
            empty: count(|sample| sample.rollout.completion.trim().is_empty()),
            left_out_prompts: self.left_out.len(),
            cut_prompts: self.cut_prompts,
        }
    }
}

/// What is read of a prompt.
fn room<'a>(tokens: &'a [u32], config: &RolloutConfig, context: usize) -> Result<&'a [u32], WhyLeftOut> {
    let mut kept = tokens;
    if let Some(limit) = config.prompt_limit {
        let surplus = tokens.len().saturating_sub(limit.tokens.get());
        match limit.on_too_long {
            LongPrompt::LeaveOut if surplus > 0 => {
                return Err(WhyLeftOut::TooLong { tokens: tokens.len(), limit: limit.tokens.get() });
            }
            _ => kept = &tokens[surplus..],
        }
    }
    if kept.is_empty() {
        return Err(WhyLeftOut::Empty);
    }
    if kept.len() >= context {
        return Err(WhyLeftOut::FillsContext { tokens: kept.len(), limit: context });
    }
    Ok(kept)
}

/// The error with its prompt's place among all of them.
fn in_the_list(mut error: GenerateError, requests: &[Request<'_>]) -> GenerateError {
    if let GenerateError::UnknownToken { prompt, .. } | GenerateError::Sampling { prompt, .. } = &mut error {
        *prompt = requests[*prompt].stream as usize;
    }
    error
}

fn text(
    generation: &Generation,
    config: &RolloutConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<String, TokenizerError> {
    match tokenizer {
        Some(tokenizer) => generation.text(tokenizer, &config.stop),
        None => Ok(generation.tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")),
    }
}

fn sampled(
    example: &PromptExample,
    request: &Request<'_>,
    generation: Generation,
    completion: String,
) -> Sampled {
    let Generation { tokens, log_probs, supports, finish } = generation;
    let group = u64::from(request.stream);
    Sampled {
        rollout: Rollout {
            prompt: example.prompt.clone(),
            completion,
            tokens: Some(tokens.clone()),
            finish: finish.into(),
            group,
            columns: example.columns.clone(),
        },
        trajectory: Trajectory {
            group,
            prompt: request.tokens.to_vec(),
            is_action: vec![true; tokens.len()],
            tokens,
            sampling_log_probs: log_probs,
            supports,
            finish: finish.into(),
        },
    }
}
