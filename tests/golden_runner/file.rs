//! A golden file and the plain ways of reading numbers out of it.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One JSON file of a golden directory.
#[derive(Debug)]
pub struct GoldenFile {
    /// The directory: sidecar files and model directories lie relative to it.
    pub directory: PathBuf,
    /// File name without `.json`.
    pub name: String,
    pub json: Value,
}

impl GoldenFile {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self {
            directory: path.parent().unwrap().to_path_buf(),
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        }
    }

    /// The file's `kind`; `""` where it names none.
    pub fn kind(&self) -> &str {
        self.json["kind"].as_str().unwrap_or_default()
    }
}

/// A number; `"nan"`, `"inf"` and `"-inf"` are strings in the files.
pub fn number(value: &Value) -> f64 {
    match value {
        Value::String(s) => match s.as_str() {
            "nan" => f64::NAN,
            "inf" => f64::INFINITY,
            "-inf" => f64::NEG_INFINITY,
            other => panic!("not a number: {other}"),
        },
        Value::Bool(b) => f64::from(u8::from(*b)),
        other => other.as_f64().unwrap_or_else(|| panic!("not a number: {other}")),
    }
}

/// All numbers of a nested list, in row-major order.
pub fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        other => vec![number(other)],
    }
}

/// A list of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {value}"))
        .iter()
        .map(|x| x.as_u64().unwrap() as u32)
        .collect()
}

/// A list of rows of integers.
pub fn rows(value: &Value) -> Vec<Vec<i64>> {
    let list = value.as_array().unwrap_or_else(|| panic!("not a list: {value}"));
    list.iter().map(|row| row.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()).collect()
}

/// A string field that must be there.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text under {key}"))
}
