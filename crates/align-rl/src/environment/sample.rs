//! Sampling a policy in environments.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
};

use align_model::{
    causal_lm::IncrementalLm,
    chat::Message,
    generate::{Finish, GenerateError, Generation, Request, generate_requests},
};
use align_reward::{
    rollout::{FinishReason, Prompt, Rollout},
    score::Score,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Map, Value};

use super::{
    ConversationTokenizer, Environment, Episode, EpisodeConfig, EpisodeEnd, Episodes, Reply, TranscriptError,
    transcript::Transcript,
};
use crate::{
    Trajectory,
    rollout::{LeftOutPrompt, Sampled, WhyLeftOut},
};

/// An environment and the group that its episode belongs to: those that begin alike share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<E> {
    /// The group.
    pub group: u64,
    /// The environment.
    pub environment: E,
}

/// Episodes could not be sampled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpisodeError {
    /// A turn could not be sampled.
    #[error("turn {turn} cannot be sampled; prompts are numbered as the environments are")]
    Generate {
        /// The turn; the first is 1.
        turn: usize,
        /// Why.
        #[source]
        source: GenerateError,
    },
    /// A conversation could not be put into tokens.
    #[error("environment {environment}")]
    Transcript {
        /// The environment's place in the list.
        environment: usize,
        /// Why.
        #[source]
        source: TranscriptError,
    },
    /// Every turn would run until there is no room left, and no environment would ever answer.
    #[error("nothing ends a turn: give the model's end-of-turn token in `stop.tokens`")]
    NothingEndsATurn,
}

/// Lets a policy speak in environments until each conversation is over. All that still go on are continued together.
///
/// The same seed gives the same conversations; what becomes of one depends on its place in the list and, but for rounding,
/// not on the others.
/// Each turn reads its whole conversation again.
///
/// # Errors
/// If a conversation cannot be put into tokens, nothing ends a turn, or the policy cannot be sampled. An environment that
/// fails or panics ends its own episode alone.
pub fn sample_episodes<M: IncrementalLm, E: Environment>(
    policy: &M,
    members: Vec<Member<E>>,
    config: &EpisodeConfig,
    seed: u64,
    conversation: ConversationTokenizer<'_>,
) -> Result<Episodes, EpisodeError> {
    if config.stop.tokens.is_empty() && config.stop.strings.is_empty() {
        return Err(EpisodeError::NothingEndsATurn);
    }
    let context = policy.max_positions();
    let (mut episodes, mut live) = (Episodes::default(), Vec::new());
    for (index, member) in members.into_iter().enumerate() {
        let new = Conversation::new(index, member, conversation);
        let new = new.map_err(|source| EpisodeError::Transcript { environment: index, source })?;
        match new.transcript.prompt.len() {
            0 => episodes.left_out.push(LeftOutPrompt { prompt: index, why: WhyLeftOut::Empty }),
            tokens if tokens >= context => episodes.left_out.push(LeftOutPrompt {
                prompt: index,
                why: WhyLeftOut::FillsContext { tokens, limit: context },
            }),
            _ => live.push(new),
        }
    }
    // Every turn has a seed of its own, and every conversation its own stream of it.
    let mut seeds = ChaCha8Rng::seed_from_u64(seed);
    let mut over: Vec<(usize, Episode)> = Vec::new();
    for turn in 1.. {
        if live.is_empty() {
            break;
        }
        let generations = speak(policy, &live, config, (turn, seeds.next_u64()), conversation)?;
        let mut going = Vec::with_capacity(live.len());
        for (mut one, generation) in live.into_iter().zip(generations) {
            let index = one.index;
            let end = one.advance(generation, config, context);
            match end.map_err(|source| EpisodeError::Transcript { environment: index, source })? {
                Some(end) => over.push((index, one.finish(end))),
                None => going.push(one),
            }
        }
        live = going;
    }
    over.sort_by_key(|(index, _)| *index);
    episodes.episodes = over.into_iter().map(|(_, episode)| episode).collect();
    Ok(episodes)
}

/// One turn of all conversations that go on.
fn speak<M: IncrementalLm, E: Environment>(
    policy: &M,
    live: &[Conversation<'_, E>],
    config: &EpisodeConfig,
    (turn, seed): (usize, u64),
    conversation: ConversationTokenizer<'_>,
) -> Result<Vec<Generation>, EpisodeError> {
    let histories: Vec<Vec<u32>> = live.iter().map(|one| one.transcript.history()).collect();
    let requests: Vec<Request<'_>> = live
        .iter()
        .zip(&histories)
        .map(|(one, tokens)| Request { tokens, stream: one.index as u32, max_new_tokens: one.room(config) })
        .collect();
    let generation = config.turn().generation(seed);
    let generated = generate_requests(policy, &requests, &generation, Some(conversation.tokenizer));
    let generated = generated.map_err(|mut source| {
        if let GenerateError::UnknownToken { prompt, .. } | GenerateError::Sampling { prompt, .. } =
            &mut source
        {
            *prompt = live[*prompt].index;
        }
        EpisodeError::Generate { turn, source }
    })?;
    Ok(generated.into_iter().flatten().collect())
}

/// A conversation that goes on.
struct Conversation<'a, E> {
    index: usize,
    group: u64,
    environment: E,
    transcript: Transcript<'a>,
    with: ConversationTokenizer<'a>,
    columns: Map<String, Value>,
    /// What the policy said last, as rewards read it.
    completion: String,
    score: Option<Score>,
    calls: usize,
    malformed_calls: usize,
}

impl<'a, E: Environment> Conversation<'a, E> {
    fn new(
        index: usize,
        Member { group, environment }: Member<E>,
        with: ConversationTokenizer<'a>,
    ) -> Result<Self, TranscriptError> {
        let transcript = Transcript::new(with, environment.opening(), environment.tools())?;
        Ok(Self {
            index,
            group,
            columns: environment.columns(),
            environment,
            transcript,
            with,
            completion: String::new(),
            score: None,
            calls: 0,
            malformed_calls: 0,
        })
    }

    /// Tokens that the next turn may have.
    fn room(&self, config: &EpisodeConfig) -> NonZeroUsize {
        let left = config.max_tokens.get() - self.transcript.tokens.len();
        config.max_turn_tokens.min(NonZeroUsize::new(left).unwrap_or(NonZeroUsize::MIN))
    }

    /// Takes a turn of the policy and what the environment makes of it. Returns why it ends, if it does.
    fn advance(
        &mut self,
        generation: Generation,
        config: &EpisodeConfig,
        context: usize,
    ) -> Result<Option<EpisodeEnd>, TranscriptError> {
        self.completion = generation.text(self.with.tokenizer, &config.stop)?;
        let is_cut = matches!(generation.finish, Finish::Length | Finish::Context);
        let text = self.transcript.act(generation)?;
        if is_cut {
            return Ok(Some(EpisodeEnd::Tokens));
        }
        let replies = match self.answer(&text, config) {
            Ok(Reply::Continue(replies)) => replies,
            Ok(Reply::Done { score }) => {
                self.score = score;
                return Ok(Some(EpisodeEnd::Done));
            }
            Err(reason) => return Ok(Some(EpisodeEnd::Failed { reason })),
        };
        if self.transcript.turns >= config.max_turns.get() {
            return Ok(Some(EpisodeEnd::Turns));
        }
        let following = self.transcript.following(replies, &config.stop.tokens)?;
        let tokens = self.transcript.tokens.len() + following.tokens.len();
        if tokens >= config.max_tokens.get() || self.transcript.prompt.len() + tokens >= context {
            return Ok(Some(EpisodeEnd::Tokens));
        }
        self.transcript.observe(following);
        Ok(None)
    }

    fn answer(&mut self, text: &str, config: &EpisodeConfig) -> Result<Reply, String> {
        let turn = config.tool_calls.read(text);
        self.calls += turn.calls.len();
        self.malformed_calls += turn.malformed.len();
        if !turn.malformed.is_empty() {
            let errors = turn.malformed.iter().map(|call| Message::tool(format!("error: {call}")));
            return Ok(Reply::Continue(errors.collect()));
        }
        // An environment that panicked is not asked again, so what it left half done does no harm.
        catch_unwind(AssertUnwindSafe(|| self.environment.respond(&turn)))
            .unwrap_or_else(|_| Err("the environment panicked".into()))
    }

    fn finish(self, end: EpisodeEnd) -> Episode {
        let Transcript {
            mut messages, turns, last_turn, prompt, tokens, is_action, log_probs, supports, ..
        } = self.transcript;
        let finish = match end {
            EpisodeEnd::Done => FinishReason::Stop,
            EpisodeEnd::Turns | EpisodeEnd::Tokens => FinishReason::Length,
            EpisodeEnd::Failed { .. } => FinishReason::Cancelled,
        };
        // The policy's own turn is the last message, and the rollout's completion.
        messages.pop();
        let rollout = Rollout {
            prompt: Prompt::Messages(messages),
            completion: self.completion,
            tokens: Some(tokens[last_turn..].to_vec()),
            finish,
            group: self.group,
            columns: self.columns,
        };
        let trajectory = Trajectory {
            group: self.group,
            prompt,
            tokens,
            is_action,
            sampling_log_probs: log_probs,
            supports,
            finish,
        };
        Episode {
            sampled: Sampled { trajectory, rollout },
            score: self.score,
            end,
            turns,
            calls: self.calls,
            malformed_calls: self.malformed_calls,
        }
    }
}
