//! What a model makes of requests that it never saw.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use align_model::{
    causal_lm::TokenBatch,
    chat::{Message, RenderOptions},
    decoder::Decoder,
    generate::{
        Completer as _, Completion, Decoding, Finish, GenerationConfig, LocalCompleter, SamplingConfig,
        StopAt,
    },
    logprob::{Targets, token_log_probs},
    number::Proportion,
    sft::{LossOn, SftTokenizer},
};
use serde::Serialize;

use super::{
    preferences::preferred,
    stage::{conversation, located},
    workshop::Workshop,
    world::{Manner, Task, TaskKind, worth},
};

/// How well a model answers held-out requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Evaluation {
    /// Right answers.
    pub(super) accuracy: Proportion,
    /// Right answers to each kind of request.
    pub(super) accuracy_by_kind: BTreeMap<&'static str, Proportion>,
    /// Answers that end by themselves.
    pub(super) ended: Proportion,
    /// Answers that are right and kind.
    pub(super) kind: Proportion,
    /// Pairs of answers of which the better one is the likelier.
    pub(super) preferred: Proportion,
    /// Mean negative log-likelihood of the right answers' tokens, in nats.
    pub(super) answer_nll: f64,
    /// Its exponential.
    pub(super) answer_perplexity: f64,
    /// The answers, in the order of the requests.
    pub(super) answers: Vec<Answer>,
}

/// What a model said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Answer {
    /// The words.
    pub(super) text: String,
    /// Whether they are right.
    pub(super) correct: bool,
    /// Whether the model ended the answer itself.
    pub(super) ended: bool,
}

/// A mean, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Interval {
    /// The mean.
    pub(super) mean: f64,
    /// The lower end of the 95 % interval.
    pub(super) low: f64,
    /// The upper end of the 95 % interval.
    pub(super) high: f64,
    /// Over how many requests.
    pub(super) count: usize,
}

/// Room for the longest answer several times over.
pub(super) const LONGEST_ANSWER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(23);

/// The share of answers of which something holds.
fn proportion_of(answers: &[(TaskKind, &Answer)], holds: impl Fn(TaskKind, &Answer) -> bool) -> Proportion {
    Proportion::new(answers.iter().filter(|(kind, answer)| holds(*kind, answer)).count(), answers.len())
}

impl Evaluation {
    /// Asks every held-out request, in chat form and greedily.
    pub(super) fn of(model: &Decoder, workshop: &Workshop) -> anyhow::Result<Self> {
        let answers = answers(model, workshop)?;
        let by_kind: Vec<_> = workshop.held_out.iter().map(Task::kind).zip(&answers).collect();
        let accuracy_of = |wanted: TaskKind| {
            let asked: Vec<_> = by_kind.iter().copied().filter(|(kind, _)| *kind == wanted).collect();
            (wanted.name(), proportion_of(&asked, |_, answer| answer.correct))
        };
        let answer_nll = answer_nll(model, workshop)?;
        let is_kind = |(task, answer): &(&Task, &Answer)| worth(task, &answer.text) == Some(Manner::Kind);
        let kind = workshop.held_out.iter().zip(&answers).filter(is_kind).count();
        Ok(Self {
            accuracy: proportion_of(&by_kind, |_, answer| answer.correct),
            accuracy_by_kind: TaskKind::ALL.into_iter().map(accuracy_of).collect(),
            ended: proportion_of(&by_kind, |_, answer| answer.ended),
            kind: Proportion::new(kind, answers.len()),
            preferred: preferred(model, workshop)?,
            answer_nll,
            answer_perplexity: answer_nll.exp(),
            answers,
        })
    }
}

fn answers(model: &Decoder, workshop: &Workshop) -> anyhow::Result<Vec<Answer>> {
    let requests: Vec<Vec<Message>> =
        workshop.held_out.iter().map(|task| vec![Message::user(task.request())]).collect();
    let completer = LocalCompleter {
        model,
        tokenizer: &workshop.tokenizer,
        templates: &workshop.templates,
        render: RenderOptions::prompt(),
        generation: GenerationConfig {
            max_new_tokens: LONGEST_ANSWER,
            sampling: SamplingConfig { decoding: Decoding::Greedy, ..SamplingConfig::default() },
            stop: StopAt { tokens: vec![workshop.end_token()?], strings: Vec::new() },
            ..GenerationConfig::default()
        },
    };
    let completions = completer.complete(&requests)?;
    let judged = workshop.held_out.iter().zip(completions).map(|(task, Completion { text, finish })| {
        Answer { correct: task.is_correct(&text), text, ended: matches!(finish, Finish::StopToken(_)) }
    });
    Ok(judged.collect())
}

/// Mean negative log-likelihood of the right answers, the token that ends them included.
fn answer_nll(model: &Decoder, workshop: &Workshop) -> anyhow::Result<f64> {
    let config = workshop.plan.sft.config(LossOn::Assistant, workshop.seed)?;
    let tokenizer = SftTokenizer::new(&config, &workshop.tokenizer, Some(&workshop.templates));
    let records = located("held-out requests", workshop.held_out.iter().map(conversation));
    let examples = tokenizer.samples(&records)?.examples;
    let sequences: Vec<_> = examples.iter().map(|example| example.tokens.as_slice()).collect();
    let selected: Vec<bool> = examples.iter().flat_map(|example| example.is_target.iter().copied()).collect();
    let batch = TokenBatch::from_sequences(&sequences);
    let targets = Targets::selected(&batch, &selected);
    let log_probs = token_log_probs(model, &batch, &targets).values.into_data();
    Ok(-log_probs.iter::<f64>().sum::<f64>() / targets.len() as f64)
}
