//! One message of a conversation.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

/// A message: a JSON object with a `role`, every further key kept in its order.
///
/// Rows of conversational data sets read as they are; templates see exactly the keys that the row has.
///
/// ```
/// use align_model::chat::Message;
///
/// let message: Message = serde_json::from_str(r#"{"role": "user", "content": "Hi!"}"#)?;
/// assert_eq!(message, Message::user("Hi!"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message {
    fields: Map<String, Value>,
}

impl Message {
    /// A message with this role and text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("role".into(), Value::String(role.into()));
        fields.insert("content".into(), Value::String(content.into()));
        Self { fields }
    }

    /// What the operator tells the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model says.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// What a tool answered.
    pub fn tool(content: impl Into<String>) -> Self {
        Self::new("tool", content)
    }

    /// The message with a further key, or another value under it.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(key.into(), value.into());
        self
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The value under a key; `None` where the key is missing or null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// The content as it is: text, or a list of parts.
    #[must_use]
    pub fn content(&self) -> Option<&Value> {
        self.get("content")
    }

    /// The content as text; of a list of parts, the texts one after another. Empty where there is none.
    pub fn text(&self) -> String {
        match self.content() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts.iter().filter_map(part_text).collect(),
            _ => String::new(),
        }
    }

    /// The reasoning that came before the content, under whichever of its names.
    #[must_use]
    pub fn reasoning_content(&self) -> Option<&Value> {
        REASONING_KEYS.iter().find_map(|key| self.get(key))
    }

    /// The tools that the assistant calls; empty where it calls none.
    pub fn tool_calls(&self) -> &[Value] {
        self.get("tool_calls").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The speaker's or tool's name.
    pub fn name(&self) -> Option<&str> {
        self.get("name").and_then(Value::as_str)
    }

    /// The call that a tool message answers.
    pub fn tool_call_id(&self) -> Option<&str> {
        self.get("tool_call_id").and_then(Value::as_str)
    }

    /// Every key and value, in order.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// What a template sees: null values dropped, the reasoning under both of its names.
    pub(super) fn for_template(&self) -> Map<String, Value> {
        let present = self.fields.iter().filter(|(_, value)| !value.is_null());
        let reasoning = self.reasoning_content().cloned();
        let mut fields = Map::new();
        if let Some(reasoning) = &reasoning {
            fields.insert("thinking".into(), reasoning.clone());
        }
        fields.extend(present.map(|(key, value)| (key.clone(), value.clone())));
        if let Some(reasoning) = reasoning {
            fields.insert("reasoning_content".into(), reasoning);
        }
        fields
    }
}

/// The names under which a message's reasoning is found, the standard one first.
pub(super) const REASONING_KEYS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

fn part_text(part: &Value) -> Option<&str> {
    part.as_str().or_else(|| part.get("text").and_then(Value::as_str))
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        match fields.get("role") {
            Some(Value::String(_)) => Ok(Self { fields }),
            Some(other) => Err(D::Error::custom(format!("a message's role must be text, found {other}"))),
            None => Err(D::Error::missing_field("role")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_keep_every_key_in_order() {
        let row =
            r#"{"content":null,"role":"assistant","tool_calls":[{"function":{"name":"f"}}],"weight":0.5}"#;
        let message: Message = serde_json::from_str(row).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), row);
        assert_eq!(message.role(), "assistant");
        assert_eq!(message.content(), None);
        assert_eq!(message.tool_calls().len(), 1);
        assert!(!message.for_template().contains_key("content"));
    }

    #[test]
    fn a_message_without_role_is_refused() {
        let error = serde_json::from_value::<Message>(json!({"content": "Hi!"})).unwrap_err();
        assert!(error.to_string().contains("role"), "{error}");
        assert!(serde_json::from_value::<Message>(json!({"role": 1})).is_err());
    }

    #[test]
    fn parts_read_as_text() {
        let message: Message = serde_json::from_value(json!({
            "role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
        }))
        .unwrap();
        assert_eq!(message.text(), "ab");
    }

    #[test]
    fn reasoning_is_found_under_each_name() {
        for key in REASONING_KEYS {
            let fields = Message::assistant("4").with(key, "2 + 2").for_template();
            assert_eq!(fields["reasoning_content"], "2 + 2", "{key}");
            assert_eq!(fields["thinking"], "2 + 2", "{key}");
        }
    }
}
