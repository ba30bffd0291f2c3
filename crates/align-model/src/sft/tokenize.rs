//! From records to tokens and marks of which of them carry the loss, as TRL's `SFTTrainer` prepares them.

use chrono::NaiveDateTime;
use serde_json::Value;

use super::{LossOn, SftConfig, SftExample, Truncation};
use crate::{
    chat::{ChatError, ChatTemplates, Message, RenderOptions},
    data::{Located, SftRecord, TemplateColumns},
    tokenizer::{SpecialTokens, Tokenizer, TokenizerError},
};

/// Turns records into samples.
#[derive(Debug)]
pub struct SftTokenizer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat templates; needed for conversational records.
    pub templates: Option<&'a ChatTemplates>,
    /// Which tokens carry the loss.
    pub loss_on: LossOn,
    /// Tokens a sample, at most.
    pub max_length: usize,
    /// Which end of a longer sample is kept.
    pub truncation: Truncation,
    /// What a template that asks for the date is told.
    pub now: Option<NaiveDateTime>,
}

/// What became of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SftSamples {
    /// The samples, in the order of their records.
    pub examples: Vec<SftExample>,
    /// Samples that were longer than allowed and cut.
    pub truncated: usize,
    /// Samples in which no token carries a loss, left out: TRL does so too.
    pub without_loss: usize,
    /// Samples whose prompt, tokenised alone, is not how the whole begins; the boundary is then where the prompt's own
    /// tokens end.
    pub uneven_boundaries: usize,
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftOutcome {
    /// The sample; `None` if no token of it carries a loss.
    pub example: Option<SftExample>,
    /// Whether it was longer than allowed and cut.
    pub is_truncated: bool,
    /// Whether its prompt, tokenised alone, is not how the whole begins.
    pub is_uneven: bool,
}

impl SftSamples {
    /// Adds what became of one more record.
    pub fn push(&mut self, outcome: SftOutcome) {
        self.truncated += usize::from(outcome.is_truncated);
        self.uneven_boundaries += usize::from(outcome.is_uneven);
        match outcome.example {
            Some(example) => self.examples.push(example),
            None => self.without_loss += 1,
        }
    }
}

/// A record could not become a sample.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}")]
pub struct SftDataError {
    /// The file.
    pub path: String,
    /// The line; the first is 1.
    pub line: usize,
    /// Why.
    #[source]
    pub source: SftRecordError,
}

/// Why a record could not become a sample.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SftRecordError {
    /// The conversation could not be rendered.
    #[error("the conversation cannot be rendered")]
    Chat(#[from] ChatError),
    /// The text could not be tokenised.
    #[error("the text cannot be tokenised")]
    Tokenizer(#[from] TokenizerError),
    /// A conversational record, but the model has no chat template.
    #[error(
        "the record is a conversation, but the model has no chat template: add one to tokenizer_config.json, or use `text` records"
    )]
    NoTemplate,
    /// `loss_on = "assistant"` with a record that is not a conversation.
    #[error("`loss_on` = \"assistant\" needs conversations, and this record is plain text")]
    AssistantOfText,
    /// A template variable must not replace what the record gives.
    #[error("`chat_template_kwargs` sets `{key}`, which the trainer sets itself")]
    ReservedVariable {
        /// The variable.
        key: String,
    },
}

/// A sample before it is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeSample {
    /// The sample.
    pub example: SftExample,
    /// Whether its prompt, tokenised alone, is not how the whole begins.
    pub uneven_boundary: bool,
}

impl<'a> SftTokenizer<'a> {
    /// A tokeniser with the settings of a run.
    #[must_use]
    pub fn new(config: &SftConfig, tokenizer: &'a Tokenizer, templates: Option<&'a ChatTemplates>) -> Self {
        Self {
            tokenizer,
            templates,
            loss_on: config.loss_on,
            max_length: match config.packing {
                // Packing needs samples whole: what does not fit one row goes on in another.
                Some(packing) if packing.keeps_every_token() => usize::MAX,
                _ => config.max_length.get(),
            },
            truncation: config.truncation,
            now: None,
        }
    }

    /// Turns all records into samples.
    ///
    /// # Errors
    /// If one cannot be: says where it stands and why.
    pub fn samples(&self, records: &[Located<SftRecord>]) -> Result<SftSamples, SftDataError> {
        let mut samples = SftSamples::default();
        for located in records {
            samples.push(self.sample(located)?);
        }
        Ok(samples)
    }

    /// Turns one record into a sample: a stream of records becomes a stream of samples.
    ///
    /// # Errors
    /// If it cannot be: says where it stands and why.
    pub fn sample(&self, located: &Located<SftRecord>) -> Result<SftOutcome, SftDataError> {
        let WholeSample { mut example, uneven_boundary } = self.whole(&located.record).map_err(|source| {
            SftDataError { path: located.path.display().to_string(), line: located.line, source }
        })?;
        let is_truncated = self.truncate(&mut example);
        let example = Some(example).filter(|example| example.targets() > 0);
        Ok(SftOutcome { example, is_truncated, is_uneven: uneven_boundary })
    }

    /// Cuts a sample that is too long. Returns whether it was.
    pub fn truncate(&self, example: &mut SftExample) -> bool {
        let surplus = example.tokens.len().saturating_sub(self.max_length);
        match self.truncation {
            Truncation::KeepStart => {
                example.tokens.truncate(self.max_length);
                example.is_target.truncate(self.max_length);
            }
            Truncation::KeepEnd => {
                example.tokens.drain(..surplus);
                example.is_target.drain(..surplus);
            }
        }
        surplus > 0
    }

    /// Turns a record into a sample that is as long as it is.
    ///
    /// # Errors
    /// If it cannot be tokenised or rendered.
    pub fn whole(&self, record: &SftRecord) -> Result<WholeSample, SftRecordError> {
        match record {
            SftRecord::Text { .. } | SftRecord::PromptCompletion { .. }
                if self.loss_on == LossOn::Assistant =>
            {
                Err(SftRecordError::AssistantOfText)
            }
            SftRecord::Text { text } => {
                let tokens = self.encode_ended(text)?;
                Ok(self.after(tokens, &[]))
            }
            SftRecord::PromptCompletion { prompt, completion } => {
                let tokens = self.encode_ended(&format!("{prompt}{completion}"))?;
                Ok(self.after(tokens, &self.tokenizer.encode(prompt, SpecialTokens::Add)?))
            }
            SftRecord::Conversation { messages, template } => {
                if self.loss_on == LossOn::Assistant {
                    return self.assistant(messages, template);
                }
                let tokens = self.render(messages, template, false)?;
                Ok(self.after(tokens, &[]))
            }
            SftRecord::PromptCompletionChat { prompt, completion, template } => {
                let messages: Vec<Message> = prompt.iter().chain(completion).cloned().collect();
                let prompt = self.render(prompt, template, true)?;
                if self.loss_on == LossOn::Assistant {
                    // What the assistant says in the prompt is given, not learnt: both marks must be set.
                    let mut whole = self.assistant(&messages, template)?;
                    whole.example.is_target.iter_mut().take(prompt.len()).for_each(|target| *target = false);
                    return Ok(whole);
                }
                let tokens = self.render(&messages, template, false)?;
                Ok(self.after(tokens, &prompt))
            }
        }
    }

    /// Marks what follows the prompt; everything, if that is what carries the loss.
    fn after(&self, tokens: Vec<u32>, prompt: &[u32]) -> WholeSample {
        let boundary = if self.loss_on == LossOn::Everything { 0 } else { prompt.len() };
        let is_target = (0..tokens.len()).map(|index| index >= boundary).collect();
        let uneven_boundary = !tokens.starts_with(prompt);
        WholeSample { example: SftExample { tokens, is_target }, uneven_boundary }
    }

    /// Tokens of a plain text, ended: generation has to learn where to stop.
    pub(crate) fn encode_ended(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = self.tokenizer.encode(text, SpecialTokens::Add)?;
        if let Some(end) = self.tokenizer.eos_id()
            && tokens.last() != Some(&end)
        {
            tokens.push(end);
        }
        Ok(tokens)
    }

    fn templates(&self) -> Result<&'a ChatTemplates, SftRecordError> {
        self.templates.ok_or(SftRecordError::NoTemplate)
    }

    fn options(&self, columns: &TemplateColumns, prompt: bool) -> Result<RenderOptions, SftRecordError> {
        let reserved = ["messages", "tools", "add_generation_prompt"];
        if let Some(key) = reserved.into_iter().find(|key| columns.chat_template_kwargs.contains_key(*key)) {
            return Err(SftRecordError::ReservedVariable { key: key.into() });
        }
        Ok(RenderOptions {
            add_generation_prompt: prompt,
            now: self.now,
            variables: columns.chat_template_kwargs.clone(),
            ..RenderOptions::default()
        })
    }

    pub(crate) fn render(
        &self,
        messages: &[Message],
        columns: &TemplateColumns,
        prompt: bool,
    ) -> Result<Vec<u32>, SftRecordError> {
        let tools: Option<&[Value]> = columns.tools.as_deref();
        let options = self.options(columns, prompt)?;
        Ok(self.templates()?.render_ids(self.tokenizer, messages, tools, &options)?)
    }

    fn assistant(
        &self,
        messages: &[Message],
        columns: &TemplateColumns,
    ) -> Result<WholeSample, SftRecordError> {
        let options = self.options(columns, false)?;
        let tools = columns.tools.as_deref();
        let rendered = self.templates()?.render_tokens(self.tokenizer, messages, tools, &options)?;
        let example = SftExample { tokens: rendered.ids, is_target: rendered.assistant_mask };
        Ok(WholeSample { example, uneven_boundary: false })
    }
}
