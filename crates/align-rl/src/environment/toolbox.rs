//! An environment made of functions.

use std::collections::BTreeMap;

use align_model::chat::Message;
use serde_json::{Map, Value};

use super::{Environment, Reply, ToolCall, Turn};

/// A function that a policy may call.
pub trait Tool {
    /// What it is called.
    fn name(&self) -> &str;

    /// What the policy is told of it, as chat templates want it: an object with `type` and `function`.
    fn description(&self) -> Value;

    /// Calls it.
    ///
    /// # Errors
    /// What is wrong with the arguments or went wrong, for the policy to read.
    fn call(&mut self, arguments: &Map<String, Value>) -> Result<String, String>;
}

/// A question and tools to answer it with. The policy is done with the first turn in which it calls none; what that is
/// worth, rewards decide.
///
/// What a tool returns becomes a message of the role `tool`, and so does what goes wrong.
pub struct Toolbox {
    opening: Vec<Message>,
    descriptions: Vec<Value>,
    tools: BTreeMap<String, Box<dyn Tool>>,
    columns: Map<String, Value>,
}

impl Toolbox {
    /// A conversation that begins like this.
    #[must_use]
    pub fn new(opening: Vec<Message>) -> Self {
        Self { opening, descriptions: Vec::new(), tools: BTreeMap::new(), columns: Map::new() }
    }

    /// The same with a further tool, in the place of one of the same name.
    #[must_use]
    pub fn with_tool(mut self, tool: impl Tool + 'static) -> Self {
        self.descriptions.push(tool.description());
        self.tools.insert(tool.name().to_owned(), Box::new(tool));
        self
    }

    /// The same with a further column for rewards.
    #[must_use]
    pub fn with_column(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.columns.insert(name.into(), value.into());
        self
    }

    fn call(&mut self, call: &ToolCall) -> Message {
        let answer = if let Some(tool) = self.tools.get_mut(&call.name) {
            tool.call(&call.arguments).unwrap_or_else(|reason| format!("error: {reason}"))
        } else {
            let known: Vec<&str> = self.tools.keys().map(String::as_str).collect();
            format!("error: there is no tool `{}`; there are: {}", call.name, known.join(", "))
        };
        Message::tool(answer).with("name", call.name.as_str())
    }
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toolbox").field("tools", &self.tools.keys()).finish_non_exhaustive()
    }
}

impl Environment for Toolbox {
    fn opening(&self) -> Vec<Message> {
        self.opening.clone()
    }

    fn tools(&self) -> &[Value] {
        &self.descriptions
    }

    fn columns(&self) -> Map<String, Value> {
        self.columns.clone()
    }

    fn respond(&mut self, turn: &Turn) -> Result<Reply, String> {
        if turn.calls.is_empty() {
            return Ok(Reply::Done { score: None });
        }
        Ok(Reply::Continue(turn.calls.iter().map(|call| self.call(call)).collect()))
    }
}
