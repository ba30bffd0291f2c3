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

/// How many of how many, and what that says about the share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Proportion {
    /// How many.
    pub(super) count: usize,
    /// Of how many.
    pub(super) total: usize,
    /// Their quotient.
    pub(super) share: f64,
    /// The lower end of the 95 % interval.
    pub(super) low: f64,
    /// The upper end of the 95 % interval.
    pub(super) high: f64,
}

/// Room for the longest answer several times over.
const LONGEST_ANSWER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(23);

/// The normal distribution's 97.5 % quantile.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

impl Proportion {
    /// With Wilson's score interval at 95 % (Wilson 1927), which keeps its meaning near 0 and 1.
    pub(super) fn new(count: usize, total: usize) -> Self {
        if total == 0 {
            return Self { count, total, share: 0.0, low: 0.0, high: 1.0 };
        }
        let (n, z2) = (total as f64, NORMAL_QUANTILE * NORMAL_QUANTILE);
        let share = count as f64 / n;
        let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let spread = share * (1.0 - share) / n + z2 / (4.0 * n * n);
        let half = NORMAL_QUANTILE * spread.sqrt() / (1.0 + z2 / n);
        Self { count, total, share, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    fn of(answers: &[(TaskKind, &Answer)], holds: impl Fn(TaskKind, &Answer) -> bool) -> Self {
        Self::new(answers.iter().filter(|(kind, answer)| holds(*kind, answer)).count(), answers.len())
    }
}

impl Evaluation {
    /// Asks every held-out request, in chat form and greedily.
    pub(super) fn of(model: &Decoder, workshop: &Workshop) -> anyhow::Result<Self> {
        let answers = answers(model, workshop)?;
        let by_kind: Vec<_> = workshop.held_out.iter().map(Task::kind).zip(&answers).collect();
        let accuracy_of = |wanted: TaskKind| {
            let asked: Vec<_> = by_kind.iter().copied().filter(|(kind, _)| *kind == wanted).collect();
            (wanted.name(), Proportion::of(&asked, |_, answer| answer.correct))
        };
        let answer_nll = answer_nll(model, workshop)?;
        let is_kind = |(task, answer): &(&Task, &Answer)| worth(task, &answer.text) == Some(Manner::Kind);
        let kind = workshop.held_out.iter().zip(&answers).filter(is_kind).count();
        Ok(Self {
            accuracy: Proportion::of(&by_kind, |_, answer| answer.correct),
            accuracy_by_kind: TaskKind::ALL.into_iter().map(accuracy_of).collect(),
            ended: Proportion::of(&by_kind, |_, answer| answer.ended),
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

#[cfg(test)]
mod tests {
    use super::*;

    // Where p is 0, 1/2 or 1 the formula collapses: z²/(n + z²) above 0, ½ ± z/(2·√(n + z²)) around the middle.
    #[test]
    fn intervals_are_wilsons() {
        let close = |p: Proportion, low: f64, high: f64| {
            assert!((p.low - low).abs() < 1e-7 && (p.high - high).abs() < 1e-7, "{p:?}");
        };
        close(Proportion::new(0, 10), 0.0, 0.277_532_8);
        close(Proportion::new(5, 10), 0.236_593_1, 0.763_406_9);
        close(Proportion::new(10, 10), 0.722_467_2, 1.0);
    }
}
