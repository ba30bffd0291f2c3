//! Prompts as tokens.

use align_model::{
    chat::{ChatError, ChatTemplates, Message, RenderOptions},
    data::{Located, PromptRecord, TemplateColumns},
    tokenizer::{SpecialTokens, Tokenizer, TokenizerError},
};
use align_reward::rollout::Prompt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A prompt, what a model reads of it, and what a reward may know besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptExample {
    /// What is asked, for rewards and readers.
    pub prompt: Prompt,
    /// What the model continues.
    pub tokens: Vec<u32>,
    /// The row's other columns, such as the right answer.
    pub columns: Map<String, Value>,
}

/// Turns records into prompts as tokens.
///
/// A text is tokenised with the tokens that begin every text. Of a conversation the chat template makes what the assistant
/// answers; where the assistant spoke last, what it goes on with.
#[derive(Debug, Clone, Copy)]
pub struct PromptTokenizer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat templates; needed for conversations.
    pub templates: Option<&'a ChatTemplates>,
    /// How conversations are rendered: the template, what it is told of the date, and its variables, which a row's own
    /// `chat_template_kwargs` go before. Whether an answer begins is decided by the conversation.
    pub render: &'a RenderOptions,
}

/// A record could not become a prompt.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}")]
pub struct PromptDataError {
    /// The file.
    pub path: String,
    /// The line; the first is 1.
    pub line: usize,
    /// Why.
    #[source]
    pub source: PromptError,
}

/// Why a record could not become a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The conversation could not be rendered.
    #[error("the prompt cannot be rendered")]
    Chat(#[from] ChatError),
    /// The text could not be tokenised.
    #[error("the prompt cannot be tokenised")]
    Tokenizer(#[from] TokenizerError),
    /// A conversation, but the model has no chat template.
    #[error(
        "the prompt is a conversation, but the model has no chat template: add one to tokenizer_config.json, or give texts \
         as prompts"
    )]
    NoTemplate,
    /// A template variable must not replace what the record gives.
    #[error("`chat_template_kwargs` sets `{key}`, which the conversation itself decides")]
    ReservedVariable {
        /// The variable.
        key: String,
    },
}

/// Variables of a template that are not the user's to set.
const RESERVED: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

impl PromptTokenizer<'_> {
    /// Turns a record of a file into a prompt as tokens; its other columns stay with it.
    ///
    /// # Errors
    /// If it cannot be rendered or tokenised: says where it stands and why.
    pub fn located(&self, record: &Located<PromptRecord>) -> Result<PromptExample, PromptDataError> {
        self.example(&record.record, record.extra.clone()).map_err(|source| PromptDataError {
            path: record.path.display().to_string(),
            line: record.line,
            source,
        })
    }

    /// Turns a record into a prompt as tokens.
    ///
    /// # Errors
    /// If it cannot be rendered or tokenised.
    pub fn example(
        &self,
        record: &PromptRecord,
        columns: Map<String, Value>,
    ) -> Result<PromptExample, PromptError> {
        let (prompt, tokens) = match record {
            PromptRecord::Text { prompt } => {
                (Prompt::Text(prompt.clone()), self.tokenizer.encode(prompt, SpecialTokens::Add)?)
            }
            PromptRecord::Chat { prompt, template } => {
                (Prompt::Messages(prompt.clone()), self.conversation(prompt, template)?)
            }
        };
        Ok(PromptExample { prompt, tokens, columns })
    }

    fn conversation(&self, messages: &[Message], columns: &TemplateColumns) -> Result<Vec<u32>, PromptError> {
        let own = &columns.chat_template_kwargs;
        if let Some(key) = RESERVED.into_iter().find(|key| own.contains_key(*key)) {
            return Err(PromptError::ReservedVariable { key: key.into() });
        }
        let continues = messages.last().is_some_and(|message| message.role() == "assistant");
        let mut options = self.render.clone();
        options.add_generation_prompt = !continues;
        options.continue_final_message = continues;
        options.variables.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        let templates = self.templates.ok_or(PromptError::NoTemplate)?;
        Ok(templates.render_ids(self.tokenizer, messages, columns.tools.as_deref(), &options)?)
    }
}
