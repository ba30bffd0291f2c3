//! Conversations and the Jinja templates that turn them into the text a model was trained on.
//!
//! A [`Message`] keeps every key of its row. [`ChatTemplates`] holds the templates that came with a tokenizer and
//! renders them as `transformers` does: the same Jinja environment, the same choice among several templates, the same
//! treatment of reasoning and of an unfinished last message. [`ChatTemplates::render_tokens`] also says which tokens
//! the assistant wrote.

mod continuation;
mod environment;
mod error;
mod filters;
mod generation;
mod message;
mod python;
mod python_methods;
mod source;
mod strftime;
mod template;
mod to_json;
mod tokens;

pub use error::ChatError;
pub use message::Message;
pub use template::{ChatTemplate, ChatTemplates, RenderOptions, Rendered};
pub use tokens::RenderedTokens;
