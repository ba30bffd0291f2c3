//! Conversations in, answers out: the seam between models and everything that only talks to them.

use std::num::NonZeroUsize;

use super::{Finish, GenerateError, Generation, GenerationConfig, generate};
use crate::{
    causal_lm::IncrementalLm,
    chat::{ChatError, ChatTemplates, Message, RenderOptions},
    tokenizer::{Tokenizer, TokenizerError},
};

/// Answers conversations, whether with a model in this process or somewhere else.
pub trait Completer {
    /// The next message of each conversation, in order.
    ///
    /// # Errors
    /// If a conversation cannot be put to the model, or the model fails.
    fn complete(&self, conversations: &[Vec<Message>]) -> Result<Vec<Completion>, CompleteError>;
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// What was said, without special tokens and without the token or the string that ended it.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// A conversation could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteError {
    /// It could not be rendered.
    #[error("conversation {index} cannot be rendered")]
    Chat {
        /// Its place in the list.
        index: usize,
        /// Why.
        #[source]
        source: ChatError,
    },
    /// The model failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// An answer could not be decoded.
    #[error("cannot decode an answer")]
    Decode(#[source] TokenizerError),
}

/// A model in this process, with its tokenizer and template.
#[derive(Debug)]
pub struct LocalCompleter<'a, M> {
    /// The model.
    pub model: &'a M,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Its chat templates.
    pub templates: &'a ChatTemplates,
    /// How conversations are rendered.
    pub render: RenderOptions,
    /// How answers are generated; one sample a conversation.
    pub generation: GenerationConfig,
}

impl<M: IncrementalLm> LocalCompleter<'_, M> {
    /// The tokens of a conversation up to where the answer begins.
    ///
    /// # Errors
    /// If the template refuses it.
    pub fn prompt(&self, conversation: &[Message]) -> Result<Vec<u32>, ChatError> {
        self.templates.render_ids(self.tokenizer, conversation, None, &self.render)
    }
}

impl<M: IncrementalLm> Completer for LocalCompleter<'_, M> {
    fn complete(&self, conversations: &[Vec<Message>]) -> Result<Vec<Completion>, CompleteError> {
        let render = |(index, conversation): (usize, &Vec<Message>)| {
            self.prompt(conversation).map_err(|source| CompleteError::Chat { index, source })
        };
        let prompts: Vec<Vec<u32>> =
            conversations.iter().enumerate().map(render).collect::<Result<_, _>>()?;
        let config = GenerationConfig { samples: NonZeroUsize::MIN, ..self.generation.clone() };
        let generated = generate(self.model, &prompts, &config, Some(self.tokenizer))?;
        let completion = |generation: Generation| {
            let text =
                generation.text(self.tokenizer, &self.generation.stop).map_err(CompleteError::Decode)?;
            Ok(Completion { text, finish: generation.finish })
        };
        generated.into_iter().flatten().map(completion).collect()
    }
}
