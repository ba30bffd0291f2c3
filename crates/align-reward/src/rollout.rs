//! What a reward looks at: a prompt, what a model made of it, and what a data set knows besides.

use align_model::{chat::Message, generate::Finish};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A finished completion of a prompt.
///
/// ```
/// use align_reward::rollout::Rollout;
///
/// let rollout = Rollout::new("What is 2 + 2?", "It is 4.").with_column("answer", "4");
/// assert_eq!(rollout.text_column("answer").as_deref(), Ok("4"));
/// assert!(rollout.text_column("solution").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// What was asked.
    pub prompt: Prompt,
    /// What was answered, without special tokens.
    pub completion: String,
    /// The tokens of the completion as they were sampled; `None` where there never were any, such as for an answer
    /// from a file.
    pub tokens: Option<Vec<u32>>,
    /// Why the completion ended.
    pub finish: FinishReason,
    /// Rollouts of one prompt share this number.
    pub group: u64,
    /// The row's other columns, such as the right answer.
    pub columns: Map<String, Value>,
}

/// A text or a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A text to continue.
    Text(String),
    /// A conversation to continue.
    Messages(Vec<Message>),
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// There was no room for more.
    Length,
    /// The caller asked for no more.
    Cancelled,
}

impl Rollout {
    /// A completion that ended by itself, without tokens and columns, in group 0.
    pub fn new(prompt: impl Into<Prompt>, completion: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            completion: completion.into(),
            tokens: None,
            finish: FinishReason::Stop,
            group: 0,
            columns: Map::new(),
        }
    }

    /// The same with the tokens that were sampled.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Vec<u32>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// The same in this group.
    #[must_use]
    pub fn in_group(mut self, group: u64) -> Self {
        self.group = group;
        self
    }

    /// The same, ended for this reason.
    #[must_use]
    pub fn finished(mut self, finish: FinishReason) -> Self {
        self.finish = finish;
        self
    }

    /// The same with a further column.
    #[must_use]
    pub fn with_column(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.columns.insert(name.into(), value.into());
        self
    }

    /// The conversation with the completion as the assistant's answer, for a chat template; `None` where the prompt
    /// is a text.
    #[must_use]
    pub fn conversation(&self) -> Option<Vec<Message>> {
        let Prompt::Messages(messages) = &self.prompt else { return None };
        let answer = Message::assistant(self.completion.as_str());
        Some(messages.iter().cloned().chain([answer]).collect())
    }

    /// A column as text; numbers and booleans are written out.
    ///
    /// # Errors
    /// The reason why a reward that needs the column cannot score this rollout.
    pub fn text_column(&self, name: &str) -> Result<String, String> {
        match self.columns.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            None | Some(Value::Null) => Err(format!("the row has no column `{name}`")),
            Some(_) => Err(format!("column `{name}` is neither text nor a number")),
        }
    }
}

impl Prompt {
    /// The prompt as one text: of a conversation, what every message says, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(messages) => messages.iter().map(Message::text).collect::<Vec<_>>().join("\n"),
        }
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Self::Messages(messages)
    }
}

impl From<Finish> for FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::StopToken(_) | Finish::StopString(_) => Self::Stop,
            Finish::Length | Finish::Context => Self::Length,
            Finish::Cancelled => Self::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_read_as_text() {
        let rollout = Rollout::new("p", "c")
            .with_column("number", 4)
            .with_column("truth", true)
            .with_column("null", Value::Null)
            .with_column("list", json!([1]));
        assert_eq!(rollout.text_column("number").unwrap(), "4");
        assert_eq!(rollout.text_column("truth").unwrap(), "true");
        assert_eq!(rollout.text_column("null").unwrap_err(), "the row has no column `null`");
        assert_eq!(rollout.text_column("list").unwrap_err(), "column `list` is neither text nor a number");
    }

    #[test]
    fn rollouts_survive_json() {
        let chat = vec![Message::system("Be brief."), Message::user("Hi!")];
        let rollout = Rollout::new(chat, "Hello!").with_tokens(vec![1, 2]).in_group(3).with_column("a", 1);
        let rollout = rollout.finished(Finish::Context.into());
        let text = serde_json::to_string(&rollout).unwrap();
        assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout);
        assert!(text.contains(r#""finish":"length""#), "{text}");
        assert_eq!(rollout.prompt.text(), "Be brief.\nHi!");
        assert_eq!(rollout.conversation().unwrap().last(), Some(&Message::assistant("Hello!")));
        assert_eq!(Rollout::new("p", "c").conversation(), None);
    }
}
