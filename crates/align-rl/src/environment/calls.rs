//! Tool calls in what a policy says.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a chat template has tool calls written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToolCallFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as often as need be and with text around them: Hermes, Qwen.
    #[default]
    Hermes,
    /// The same between other marks.
    Tagged {
        /// What stands before a call.
        open: String,
        /// What stands behind it.
        close: String,
    },
    /// The whole turn is one JSON object with `name` and `arguments` (or `parameters`), or a list of them: Llama 3.1. A turn
    /// that does not begin with a brace or a bracket has no calls.
    Json,
}

/// A function that the policy wants called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its name.
    pub name: String,
    /// What it is given.
    pub arguments: Map<String, Value>,
}

/// A call that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("this tool call cannot be read ({reason}): {text}")]
#[serde(deny_unknown_fields)]
pub struct MalformedCall {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What the policy said in one turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// All of it, without the token that ended it.
    pub text: String,
    /// The same without calls.
    pub said: String,
    /// The calls, in order.
    pub calls: Vec<ToolCall>,
    /// What was to be calls, in order.
    pub malformed: Vec<MalformedCall>,
}

impl ToolCallFormat {
    /// Reads a turn.
    ///
    /// ```
    /// use align_rl::environment::ToolCallFormat;
    ///
    /// let turn = ToolCallFormat::Hermes.read(
    ///     r#"Let me see. <tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>"#,
    /// );
    /// assert_eq!(turn.said, "Let me see.");
    /// assert_eq!(turn.calls[0].name, "add");
    /// assert_eq!(turn.calls[0].arguments["b"], 3);
    /// ```
    #[must_use]
    pub fn read(&self, text: &str) -> Turn {
        let mut turn = Turn { text: text.into(), ..Turn::default() };
        match self {
            Self::Hermes => turn.read_tagged("<tool_call>", "</tool_call>"),
            Self::Tagged { open, close } => turn.read_tagged(open, close),
            Self::Json => turn.read_json(),
        }
        turn
    }
}

impl Turn {
    fn read_tagged(&mut self, open: &str, close: &str) {
        let text = self.text.clone();
        let (mut rest, mut said) = (text.as_str(), String::new());
        while let Some((before, after)) = rest.split_once(open) {
            said.push_str(before);
            let Some((inside, behind)) = after.split_once(close) else {
                self.refuse(after, format!("it does not end with {close}"));
                rest = "";
                break;
            };
            match serde_json::from_str::<Value>(inside.trim()) {
                Ok(value) => self.take(inside, &value),
                Err(error) => self.refuse(inside, format!("it is not JSON: {error}")),
            }
            rest = behind;
        }
        said.push_str(rest);
        self.said = said.trim().into();
    }

    fn read_json(&mut self) {
        let text = self.text.clone();
        let trimmed = text.trim();
        if !trimmed.starts_with(['{', '[']) {
            self.said = trimmed.into();
            return;
        }
        match serde_json::from_str::<Value>(trimmed) {
            Ok(Value::Array(values)) => {
                for value in values {
                    self.take(&value.to_string(), &value);
                }
            }
            Ok(value) => self.take(trimmed, &value),
            Err(error) => self.refuse(trimmed, format!("it is not JSON: {error}")),
        }
    }

    fn take(&mut self, text: &str, value: &Value) {
        match call(value) {
            Ok(call) => self.calls.push(call),
            Err(reason) => self.refuse(text, reason),
        }
    }

    fn refuse(&mut self, text: &str, reason: impl Into<String>) {
        self.malformed.push(MalformedCall { text: text.trim().into(), reason: reason.into() });
    }
}

/// A call, or what is wrong with it.
fn call(value: &Value) -> Result<ToolCall, &'static str> {
    let Value::Object(fields) = value else { return Err("it is no JSON object") };
    let Some(name) = fields.get("name").and_then(Value::as_str) else { return Err("it has no `name`") };
    let arguments = match fields.get("arguments").or_else(|| fields.get("parameters")) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        // As some interfaces have it: the arguments as JSON in a string.
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|_| "its `arguments` are no JSON object")?
        }
        Some(_) => return Err("its `arguments` are no JSON object"),
    };
    Ok(ToolCall { name: name.into(), arguments })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn arguments(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn calls_stand_between_tags() {
        let text = "First.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call> and \
                    <tool_call>{\"name\": \"g\", \"arguments\": \"{\\\"y\\\": 2}\"}</tool_call>";
        let turn = ToolCallFormat::Hermes.read(text);
        assert_eq!(turn.said, "First.\n and");
        assert_eq!(turn.text, text);
        assert!(turn.malformed.is_empty());
        let expected = [("f", json!({"x": 1})), ("g", json!({"y": 2}))]
            .map(|(name, value)| ToolCall { name: name.into(), arguments: arguments(value) });
        assert_eq!(turn.calls, expected);
        let other =
            ToolCallFormat::Tagged { open: "[".into(), close: "]".into() }.read("[{\"name\": \"h\"}]");
        assert_eq!(other.calls, [ToolCall { name: "h".into(), arguments: Map::new() }]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let reason = |text: &str| ToolCallFormat::Hermes.read(text).malformed[0].to_string();
        assert!(reason("<tool_call>{\"name\"</tool_call>").contains("it is not JSON"));
        assert!(reason("<tool_call>{}</tool_call>").contains("it has no `name`"));
        assert!(reason("<tool_call>[1]</tool_call>").contains("it is no JSON object"));
        assert!(reason("<tool_call>{\"name\": \"f\"}").contains("it does not end with </tool_call>"));
        let bad = "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>";
        assert!(reason(bad).contains("its `arguments` are no JSON object"));
        let mixed = ToolCallFormat::Hermes.read(&format!("{bad}<tool_call>{{\"name\": \"g\"}}</tool_call>"));
        assert_eq!((mixed.calls.len(), mixed.malformed.len()), (1, 1));
    }

    #[test]
    fn a_whole_turn_is_json() {
        let read = |text: &str| ToolCallFormat::Json.read(text);
        assert_eq!(read(" {\"name\": \"f\", \"parameters\": {\"x\": 1}}\n").calls[0].arguments["x"], 1);
        assert_eq!(read("[{\"name\": \"f\"}, {\"name\": \"g\"}]").calls.len(), 2);
        assert_eq!(read("It is {4}.").said, "It is {4}.");
        assert_eq!(read("{\"name\": ").malformed.len(), 1);
        assert_eq!(read("[1]").malformed[0].text, "1");
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(<tool_call>|</tool_call>|\\{|\\}|\"name\":|\"f\"|x|\\[| |é){0,12}") {
            for format in [ToolCallFormat::Hermes, ToolCallFormat::Json] {
                let turn = format.read(&text);
                prop_assert_eq!(&turn.text, &text);
                prop_assert!(turn.calls.len() + turn.malformed.len() <= text.len());
            }
        }
    }
}
