//! The metadata of a GGUF file, with typed look-ups that say which key is wrong.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value;

use crate::pretrained::LoadError;

/// The key-value pairs of a file.
#[derive(Debug)]
pub(super) struct Metadata {
    path: PathBuf,
    values: HashMap<String, Value>,
}

impl Metadata {
    /// The pairs `values` of the file `path`.
    pub(super) fn new(path: &Path, values: HashMap<String, Value>) -> Self {
        Self { path: path.to_owned(), values }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A non-negative integer, or `None` if the key is absent.
    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.values
            .get(key)
            .map(|value| self.expect(key, as_integer(value), "a non-negative integer"))
            .transpose()
    }

    /// A non-negative integer that has to be there.
    pub(super) fn required_integer(&self, key: &str) -> Result<u64, LoadError> {
        self.integer(key)?.ok_or_else(|| self.invalid(key, "the key is missing"))
    }

    /// A finite number, or `None` if the key is absent.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.values.get(key).map(|value| self.expect(key, as_number(value), "a finite number")).transpose()
    }

    /// A truth value, or `None` if the key is absent.
    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, LoadError> {
        let as_boolean = |value: &Value| if let Value::Bool(flag) = value { Some(*flag) } else { None };
        self.values.get(key).map(|value| self.expect(key, as_boolean(value), "a boolean")).transpose()
    }

    /// A string, or `None` if the key is absent.
    pub(super) fn string(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.values.get(key).map(|value| self.expect(key, as_str(value), "a string")).transpose()
    }

    /// An array of strings, or `None` if the key is absent.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, LoadError> {
        self.array(key, as_str, "an array of strings")
    }

    /// An array of numbers, or `None` if the key is absent.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, LoadError> {
        self.array(key, as_number, "an array of finite numbers")
    }

    /// An array of non-negative integers or truth values, or `None` if the key is absent.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<u64>>, LoadError> {
        self.array(key, as_integer, "an array of non-negative integers")
    }

    /// Whether the key holds an array.
    pub(super) fn is_array(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Value::Array(_)))
    }

    /// The keys that begin with `prefix`, sorted.
    pub(super) fn keys_with_prefix(&self, prefix: &str) -> Vec<&str> {
        let mut keys: Vec<&str> =
            self.values.keys().map(String::as_str).filter(|key| key.starts_with(prefix)).collect();
        keys.sort_unstable();
        keys
    }

    /// The error for a key that is absent or has a value that makes no sense.
    pub(super) fn invalid(&self, key: &str, reason: impl Into<String>) -> LoadError {
        LoadError::Config { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }

    fn array<'a, T>(
        &'a self,
        key: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<Vec<T>>, LoadError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let Value::Array(elements) = value else {
            return Err(self.invalid(key, format!("is not {expected}")));
        };
        elements
            .iter()
            .map(|element| self.expect(key, convert(element), expected))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn expect<T>(&self, key: &str, value: Option<T>, expected: &str) -> Result<T, LoadError> {
        value.ok_or_else(|| self.invalid(key, format!("is not {expected}")))
    }
}

fn as_str(value: &Value) -> Option<&str> {
    if let Value::String(text) = value { Some(text) } else { None }
}

fn as_integer(value: &Value) -> Option<u64> {
    match value {
        Value::U8(integer) => Some(u64::from(*integer)),
        Value::U16(integer) => Some(u64::from(*integer)),
        Value::U32(integer) => Some(u64::from(*integer)),
        Value::U64(integer) => Some(*integer),
        Value::I8(integer) => u64::try_from(*integer).ok(),
        Value::I16(integer) => u64::try_from(*integer).ok(),
        Value::I32(integer) => u64::try_from(*integer).ok(),
        Value::I64(integer) => u64::try_from(*integer).ok(),
        Value::Bool(flag) => Some(u64::from(*flag)),
        Value::F32(_) | Value::F64(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// Floats keep the shortest decimal that names them: an f32 of 1e-5 is 1e-5, not 9.99999974737875e-6.
fn as_number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::F32(number) => number.to_string().parse().ok(),
        Value::F64(number) => Some(*number),
        other => as_integer(other).map(|integer| integer as f64),
    };
    number.filter(|number: &f64| number.is_finite())
}
