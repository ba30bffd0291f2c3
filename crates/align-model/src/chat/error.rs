//! What can go wrong between a conversation and its text.

use crate::tokenizer::TokenizerError;

/// A chat template could not be read or a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is not valid Jinja.
    #[error("chat template `{template}`, line {line}: {reason}")]
    Syntax {
        /// The template's name.
        template: String,
        /// The line of the template.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template refused the conversation through `raise_exception`.
    #[error("chat template `{template}` refused the conversation: {message}")]
    Raised {
        /// The template's name.
        template: String,
        /// The template's own words.
        message: String,
    },
    /// The template failed while it was rendered.
    #[error("chat template `{template}`, line {line}: {reason}")]
    Render {
        /// The template's name.
        template: String,
        /// The line of the template; 0 where it is not known.
        line: usize,
        /// What failed.
        reason: String,
    },
    /// The template asks for today's date and none was given.
    #[error("chat template `{template}` calls strftime_now: set `now` in the render options")]
    ClockMissing {
        /// The template's name.
        template: String,
    },
    /// A date format that cannot be written.
    #[error("chat template `{template}`: strftime_now cannot write the format {format:?}")]
    DateFormat {
        /// The template's name.
        template: String,
        /// The format.
        format: String,
    },
    /// No template of this name came with the model.
    #[error("there is no chat template `{name}` (there are: {available})")]
    UnknownTemplate {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        available: String,
    },
    /// There are several templates, none of them named `default`.
    #[error(
        "the model has several chat templates and no default: name one in the render options ({available})"
    )]
    NoDefault {
        /// The names there are.
        available: String,
    },
    /// The model came without a template.
    #[error("the model has no chat template: put a chat_template.jinja next to its tokenizer.json")]
    NoTemplate,
    /// There is nothing to render.
    #[error("the conversation is empty: give at least one message")]
    EmptyConversation,
    /// A prompt for a new message and the continuation of the last one exclude each other.
    #[error("add_generation_prompt and continue_final_message exclude each other: set one of them")]
    PromptAndContinuation,
    /// The mask of a message that is to be continued is not defined.
    #[error("an assistant mask cannot be had together with continue_final_message: unset it")]
    MaskAndContinuation,
    /// The last message has nothing that could be continued.
    #[error("continue_final_message: {reason}")]
    NothingToContinue {
        /// What is missing.
        reason: &'static str,
    },
    /// The template changed or dropped the text of the last message.
    #[error(
        "continue_final_message: the final message {message:?} does not appear in the rendered conversation"
    )]
    FinalMessageLost {
        /// The text that was looked for.
        message: String,
    },
    /// The template does not mark what the assistant wrote.
    #[error(
        "chat template `{template}` has no generation block, so the assistant's tokens cannot be told apart: \
         wrap the assistant's text in {{% generation %}} … {{% endgeneration %}}, or train on whole completions"
    )]
    NoGenerationBlocks {
        /// The template's name.
        template: String,
    },
    /// A generation block was rendered aside (in a macro, `set` or `filter` block), so its place is not known.
    #[error(
        "chat template `{template}`: a generation block lies inside a macro, set or filter block and its place in the \
         text cannot be told: move it to the top level"
    )]
    MisplacedGenerationBlock {
        /// The template's name.
        template: String,
    },
    /// The rendered text could not be tokenized.
    #[error("the rendered conversation could not be tokenized")]
    Tokenizer(#[from] TokenizerError),
}
