//! What distillation learns from: prompts, and what somebody made of them, where that is known.

use align_model::{
    chat::{Message, RenderOptions},
    data::{Located, PromptRecord, Record, RecordError, Row, SftRecord, UnpairedRecord},
    inspect::{Inspected, Layout},
    preference::{OnTooLong, PreferenceTokenizer, UnpairedExample},
};
use align_reward::rollout::Prompt;
use align_rl::{
    DistillationConfig,
    distill::DistillationExample,
    rollout::{LongPrompt, PromptExample, PromptTokenizer, RolloutConfig},
};
use anyhow::{Context as _, Result, bail};
use serde_json::Map;

use crate::method::{Note, Settings as _, Texts, Tokenized, prompted::look_at};

/// A row of the data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DistillationRecord {
    /// A prompt alone.
    Prompt(PromptRecord),
    /// A prompt and a completion, whose label says nothing.
    Demonstration(UnpairedRecord),
}

impl Record for DistillationRecord {
    /// `prompt` with `completion`, or `messages` of which the assistant's last one is the completion, or `prompt` alone.
    fn from_row(row: &mut Row) -> Result<Self, RecordError> {
        let has_completion = row.has("prompt") && row.has("completion");
        if !has_completion && (row.has("prompt") || !row.has("messages")) {
            return PromptRecord::from_row(row).map(Self::Prompt);
        }
        let label = true;
        Ok(match SftRecord::from_row(row)? {
            SftRecord::PromptCompletion { prompt, completion } => {
                Self::Demonstration(UnpairedRecord::Text { prompt, completion, label })
            }
            SftRecord::PromptCompletionChat { prompt, completion, template } => {
                Self::Demonstration(UnpairedRecord::Chat { prompt, completion, label, template })
            }
            SftRecord::Conversation { messages, template } => {
                let last = messages.iter().rposition(|message| message.role() == "assistant").unwrap_or(0);
                let (prompt, completion) = (messages[..last].to_vec(), vec![messages[last].clone()]);
                Self::Demonstration(UnpairedRecord::Chat { prompt, completion, label, template })
            }
            SftRecord::Text { .. } => unreachable!("a row with `messages` is no plain text"),
        })
    }
}

impl Inspected for DistillationRecord {
    fn layout(&self) -> Layout {
        match self {
            Self::Prompt(record) => record.layout(),
            Self::Demonstration(UnpairedRecord::Text { .. }) => Layout::PromptCompletion,
            Self::Demonstration(UnpairedRecord::Chat { .. }) => Layout::PromptCompletionChat,
        }
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Prompt(record) => record.texts(),
            Self::Demonstration(record) => record.texts(),
        }
    }

    fn conversations(&self) -> Vec<Vec<&Message>> {
        match self {
            Self::Prompt(record) => record.conversations(),
            Self::Demonstration(record) => record.conversations(),
        }
    }

    fn is_answered(&self) -> bool {
        matches!(self, Self::Demonstration(_))
    }
}

impl DistillationRecord {
    fn prompt(&self) -> PromptRecord {
        match self {
            Self::Prompt(record) => record.clone(),
            Self::Demonstration(UnpairedRecord::Text { prompt, .. }) => {
                PromptRecord::Text { prompt: prompt.clone() }
            }
            Self::Demonstration(UnpairedRecord::Chat { prompt, template, .. }) => {
                PromptRecord::Chat { prompt: prompt.clone(), template: template.clone() }
            }
        }
    }
}

/// Makes an example of a record: with its completion where steps learn from the data's.
pub(super) fn tokenize<'a>(
    config: &'a DistillationConfig,
    texts: Texts<'a>,
) -> impl Fn(&Located<DistillationRecord>) -> Result<Tokenized<DistillationExample>> + 'a {
    move |located| {
        let place = || format!("{}:{}", located.path.display(), located.line);
        match &located.record {
            DistillationRecord::Demonstration(record) if config.learns_from_data() => {
                demonstration(located, record, &config.rollout, texts)
            }
            DistillationRecord::Prompt(_) if config.learns_from_data() => {
                let (name, share) = (DistillationConfig::NAME, config.on_policy.get());
                bail!(
                    "{} has no completion, and with {name}.on_policy = {share} some steps learn from those of the data: add a column `completion`, or set {name}.on_policy = 1 or {name}.off_policy = \"teacher\"",
                    place()
                )
            }
            record => {
                let read = prompt(&record.prompt(), &config.rollout, texts);
                let mut tokenized = read.with_context(place).context("cannot prepare the data")?;
                if let DistillationRecord::Demonstration(_) = record {
                    tokenized.notes.push(Note::UnreadCompletion);
                }
                Ok(tokenized)
            }
        }
    }
}

/// A prompt that the student or the teacher continues.
fn prompt(
    record: &PromptRecord,
    rollout: &RolloutConfig,
    texts: Texts<'_>,
) -> Result<Tokenized<DistillationExample>> {
    let Texts { tokenizer, templates, now, context, .. } = texts;
    let render = RenderOptions { now: Some(now), ..RenderOptions::prompt() };
    let example = PromptTokenizer { tokenizer, templates, render: &render }.example(record, Map::new())?;
    let lengths = vec![example.tokens.len()];
    let (note, is_kept) = look_at(example.tokens.len(), rollout, context);
    let examples = if is_kept { vec![example.into()] } else { Vec::new() };
    Ok(Tokenized { examples, lengths, notes: note.into_iter().collect() })
}

/// A prompt with a completion, as preference learning takes them apart; both as long as they would be if they were sampled.
fn demonstration(
    located: &Located<DistillationRecord>,
    record: &UnpairedRecord,
    rollout: &RolloutConfig,
    texts: Texts<'_>,
) -> Result<Tokenized<DistillationExample>> {
    let Texts { tokenizer, templates, now, context, .. } = texts;
    let tokenizer = PreferenceTokenizer {
        tokenizer,
        templates,
        max_length: usize::MAX,
        on_too_long: OnTooLong::LeaveOut,
        now: Some(now),
        slices: Vec::new(),
    };
    let Located { source, path, line, .. } = located;
    let record = Located {
        source: *source,
        path: path.clone(),
        line: *line,
        record: record.clone(),
        extra: Map::new(),
    };
    let outcome = tokenizer.single(&record).context("cannot prepare the data")?;
    let mut notes: Vec<Note> = outcome.is_uneven.then_some(Note::UnevenBoundary).into_iter().collect();
    let Ok(UnpairedExample { prompt: mut tokens, mut completion, .. }) = outcome.example else {
        notes.push(Note::EmptyCompletion);
        return Ok(Tokenized { examples: Vec::new(), lengths: Vec::new(), notes });
    };
    let lengths = vec![tokens.len() + completion.len()];
    let (note, is_kept) = look_at(tokens.len(), rollout, context);
    notes.extend(note);
    if !is_kept {
        return Ok(Tokenized { examples: Vec::new(), lengths, notes });
    }
    if let Some(limit) = rollout.prompt_limit.filter(|limit| limit.on_too_long == LongPrompt::KeepEnd) {
        tokens.drain(..tokens.len().saturating_sub(limit.tokens.get()));
    }
    let room = rollout.max_new_tokens.get().min(context - tokens.len());
    if completion.len() > room {
        completion.truncate(room);
        notes.push(Note::CutCompletion);
    }
    let prompt = match record.record {
        UnpairedRecord::Text { prompt, .. } => Prompt::Text(prompt),
        UnpairedRecord::Chat { prompt, .. } => Prompt::Messages(prompt),
    };
    let prompt = PromptExample { prompt, tokens, columns: Map::new() };
    Ok(Tokenized {
        examples: vec![DistillationExample { prompt, completion: Some(completion) }],
        lengths,
        notes,
    })
}
