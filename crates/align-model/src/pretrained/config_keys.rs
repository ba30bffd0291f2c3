//! Typed access to the keys of a `config.json`.

use std::path::Path;

use serde_json::{Map, Value};

use super::LoadError;

/// The object of a configuration file, with the file's name for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConfigKeys<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl<'a> ConfigKeys<'a> {
    pub(super) fn new(path: &'a Path, value: &'a Value) -> Result<Self, LoadError> {
        let map = value.as_object().ok_or_else(|| LoadError::Malformed {
            path: path.into(),
            format: "JSON",
            reason: "expected an object".into(),
        })?;
        Ok(Self { path, map })
    }

    /// A nested object, if the key is there and not null.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: self.path, map })),
            Some(other) => Err(self.wrong(key, &format!("expected an object, found {other}"))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether the key is there, if only as null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value of a key that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn count(&self, key: &str) -> Result<usize, LoadError> {
        self.optional_count(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A count that is given or else follows from others. Zero is never one.
    pub(super) fn count_or(&self, key: &str, default: usize) -> Result<usize, LoadError> {
        Ok(self.optional_count(key)?.unwrap_or(default))
    }

    /// Up to `i32::MAX`, so that products of two or three sizes stay within 64 bits.
    pub(super) fn optional_count(&self, key: &str) -> Result<Option<usize>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (1..=i32::MAX as u64).contains(&number) => Ok(Some(number as usize)),
                _ => {
                    let reason = format!("expected an integer from 1 to {}, found {value}", i32::MAX);
                    Err(self.wrong(key, &reason))
                }
            },
        }
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, LoadError> {
        self.optional_number(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A finite, positive number.
    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
                _ => Err(self.wrong(key, &format!("expected a positive number, found {value}"))),
            },
        }
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, &format!("expected true or false, found {other}"))),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, LoadError> {
        self.optional_text(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, &format!("expected a text, found {other}"))),
        }
    }

    pub(super) fn wrong(&self, key: &str, reason: &str) -> LoadError {
        LoadError::Config { path: self.path.into(), key: key.into(), reason: reason.into() }
    }
}
