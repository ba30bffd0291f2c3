//! `tokenizer_config.json`: special tokens, further tokens and chat templates.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TokenizerError;

/// The names under which a configuration gives special tokens, in the order in which templates see them.
const SPECIAL_TOKEN_KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What a `tokenizer_config.json` says.
#[derive(Debug, Clone)]
pub(super) struct TokenizerConfig {
    /// Every key but the chat template.
    pub(super) json: Map<String, Value>,
    /// Name to text.
    pub(super) special_tokens: Map<String, Value>,
    /// Name and source; `default` first.
    pub(super) chat_templates: Vec<(String, String)>,
    /// The tokens that the configuration describes: special ones and those of `added_tokens_decoder`.
    tokens: Vec<AddedToken>,
}

impl TokenizerConfig {
    pub(super) fn new(json: Value, path: &Path) -> Result<Self, TokenizerError> {
        let mut json = match json {
            Value::Object(json) => json,
            Value::Null => Map::new(),
            other => {
                let reason = format!("expected a JSON object, found {}", kind(&other));
                return Err(TokenizerError::Malformed { path: path.to_owned(), reason });
            }
        };
        let chat_templates = chat_templates(json.shift_remove("chat_template"), path)?;
        let mut config =
            Self { special_tokens: Map::new(), chat_templates, tokens: decoder_tokens(&json, path)?, json };
        for key in SPECIAL_TOKEN_KEYS {
            config.read_special_token(key, config.json.get(key).cloned(), path)?;
        }
        for key in ["model_specific_special_tokens", "extra_special_tokens"] {
            if let Some(Value::Object(further)) = config.json.get(key).cloned() {
                for (name, token) in further {
                    config.read_special_token(&name, Some(token), path)?;
                }
            }
        }
        Ok(config)
    }

    /// Takes from a `special_tokens_map.json` what the configuration does not say itself.
    pub(super) fn fill_special_tokens(
        &mut self,
        map: &Map<String, Value>,
        path: &Path,
    ) -> Result<(), TokenizerError> {
        for key in SPECIAL_TOKEN_KEYS {
            if !self.special_tokens.contains_key(key) {
                self.read_special_token(key, map.get(key).cloned(), path)?;
                if let Some(token) = self.special_tokens.get(key) {
                    self.json.insert(key.to_owned(), token.clone());
                }
            }
        }
        Ok(())
    }

    /// Replaces the templates by those that lie in files of their own.
    pub(super) fn set_templates(&mut self, templates: Vec<(String, String)>) {
        self.chat_templates = default_first(templates);
    }

    pub(super) fn set_default_template(&mut self, source: String) {
        self.chat_templates.retain(|(name, _)| name != "default");
        self.chat_templates.insert(0, ("default".to_owned(), source));
    }

    /// Teaches a tokenizer the tokens that the configuration describes and it does not know as added ones.
    pub(super) fn apply(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), TokenizerError> {
        for token in &self.tokens {
            let known = tokenizer.get_added_vocabulary().get_vocab().contains_key(&token.content);
            if known {
                continue;
            }
            let added = if token.special {
                tokenizer.add_special_tokens([token.clone()])
            } else {
                tokenizer.add_tokens([token.clone()])
            };
            added.map_err(|e| TokenizerError::Tokenizer { reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Whether decoded text is cleaned up: never that of a BPE tokenizer, whose spaces are real, unless it insists.
    pub(super) fn cleans_up(&self, is_bpe: bool) -> bool {
        let set = |key: &str| self.json.get(key).and_then(Value::as_bool).unwrap_or(false);
        set("clean_up_tokenization_spaces")
            && (!is_bpe || set("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"))
    }

    fn read_special_token(
        &mut self,
        key: &str,
        value: Option<Value>,
        path: &Path,
    ) -> Result<(), TokenizerError> {
        let mut token = match value {
            None | Some(Value::Null) => return Ok(()),
            Some(value) => added_token(&value).ok_or_else(|| TokenizerError::Config {
                path: path.to_owned(),
                key: key.to_owned(),
                reason: format!("expected text or an object with `content`, found {}", kind(&value)),
            })?,
        };
        token.special = true;
        self.special_tokens.insert(key.to_owned(), Value::String(token.content.clone()));
        if !self.tokens.iter().any(|known| known.content == token.content) {
            self.tokens.push(token);
        }
        Ok(())
    }
}

/// The tokens of `added_tokens_decoder`, by id.
fn decoder_tokens(json: &Map<String, Value>, path: &Path) -> Result<Vec<AddedToken>, TokenizerError> {
    const KEY: &str = "added_tokens_decoder";
    let malformed =
        |reason: String| TokenizerError::Config { path: path.to_owned(), key: KEY.to_owned(), reason };
    let entries = match json.get(KEY) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(malformed(format!("expected an object, found {}", kind(other)))),
    };
    let mut tokens = BTreeMap::new();
    for (id, value) in entries {
        let id: u32 = id.parse().map_err(|_| malformed(format!("`{id}` is no token id")))?;
        let token = added_token(value).ok_or_else(|| malformed(format!("token {id} has no `content`")))?;
        tokens.insert(id, token);
    }
    Ok(tokens.into_values().collect())
}

fn added_token(value: &Value) -> Option<AddedToken> {
    if let Some(content) = value.as_str() {
        return Some(AddedToken::from(content, true));
    }
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let content = value.get("content")?.as_str()?;
    let special = flag("special").unwrap_or(false);
    let mut token = AddedToken::from(content, special);
    token.lstrip = flag("lstrip").unwrap_or(false);
    token.rstrip = flag("rstrip").unwrap_or(false);
    token.single_word = flag("single_word").unwrap_or(false);
    token.normalized = flag("normalized").unwrap_or(!special);
    Some(token)
}

/// A template is text, a list of named templates, or an object of them.
fn chat_templates(value: Option<Value>, path: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let malformed = || TokenizerError::Config {
        path: path.to_owned(),
        key: "chat_template".to_owned(),
        reason: "expected text or a list of objects with `name` and `template`".to_owned(),
    };
    let named = |name: Option<&Value>, template: Option<&Value>| match (name, template) {
        (Some(Value::String(name)), Some(Value::String(template))) => Ok((name.clone(), template.clone())),
        _ => Err(malformed()),
    };
    let templates = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(template)) => vec![("default".to_owned(), template)],
        Some(Value::Array(entries)) => entries
            .iter()
            .map(|entry| named(entry.get("name"), entry.get("template")))
            .collect::<Result<_, _>>()?,
        Some(Value::Object(entries)) => {
            let entry = |(name, template): (&String, &Value)| {
                named(Some(&Value::String(name.clone())), Some(template))
            };
            entries.iter().map(entry).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(malformed()),
    };
    Ok(default_first(templates))
}

fn default_first(mut templates: Vec<(String, String)>) -> Vec<(String, String)> {
    templates.sort_by_key(|(name, _)| name != "default");
    templates
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(json: Value) -> Result<TokenizerConfig, TokenizerError> {
        TokenizerConfig::new(json, Path::new("tokenizer_config.json"))
    }

    #[test]
    fn special_tokens_are_text_or_objects() {
        let config = config(json!({
            "bos_token": {"content": "<s>", "lstrip": false, "rstrip": false},
            "eos_token": "</s>",
            "pad_token": null,
            "extra_special_tokens": {"image_token": "<image>"},
        }))
        .unwrap();
        let expected = json!({"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"});
        assert_eq!(Value::Object(config.special_tokens), expected);
    }

    #[test]
    fn a_wrong_key_is_named() {
        let error = config(json!({"bos_token": 3})).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json: bos_token"), "{error}");
        let error = config(json!({"chat_template": [{"name": "default"}]})).unwrap_err().to_string();
        assert!(error.contains("chat_template"), "{error}");
        let error = config(json!({"added_tokens_decoder": {"x": {"content": "a"}}})).unwrap_err().to_string();
        assert!(error.contains("`x` is no token id"), "{error}");
        assert!(matches!(config(json!([])), Err(TokenizerError::Malformed { .. })));
    }

    #[test]
    fn templates_come_in_three_forms() {
        let names = |json: Value| {
            let templates = config(json!({ "chat_template": json })).unwrap().chat_templates;
            templates.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(json!("a")), ["default"]);
        assert_eq!(
            names(json!([{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}])),
            ["default", "rag"]
        );
        assert_eq!(names(json!({"tool_use": "a"})), ["tool_use"]);
        assert_eq!(names(Value::Null), [""; 0]);
    }
}
