//! The `tojson` filter: Python's `json.dumps` without HTML escaping.

use std::fmt::Write as _;

use minijinja::{
    Error, ErrorKind,
    value::{Kwargs, Rest, Value, ValueKind},
};

use super::python;

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match positional.get(index) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?.map(|value| indent_text(&value)).transpose()?;
    let (item_separator, key_separator) = match argument(2, "separators")? {
        Some(pair) => (python::text(&pair.get_item_by_index(0)?), python::text(&pair.get_item_by_index(1)?)),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;
    let writer = JsonWriter { ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = String::new();
    writer.write(&mut out, value, 0)?;
    Ok(out)
}

fn indent_text(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let width = value.as_i64().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("tojson: indent must be a number or text, found {value}"),
        )
    })?;
    Ok(" ".repeat(width.clamp(0, 64) as usize))
}

struct JsonWriter {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl JsonWriter {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.array(out, value, depth)?,
            ValueKind::Map => self.object(out, value, depth)?,
            other => {
                let reason = format!("tojson: a value of kind {other} cannot be written as JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        }
        Ok(())
    }

    fn array(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut empty = true;
        out.push('[');
        for item in value.try_iter()? {
            self.before_item(out, depth, empty);
            empty = false;
            self.write(out, &item, depth + 1)?;
        }
        self.after_items(out, depth, empty);
        out.push(']');
        Ok(())
    }

    fn object(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let pairs = value.as_object().and_then(minijinja::value::DynObject::try_iter_pairs);
        let mut pairs: Vec<_> =
            pairs.into_iter().flatten().map(|(key, item)| (key_text(&key), item)).collect();
        if self.sort_keys {
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let mut empty = true;
        out.push('{');
        for (key, item) in pairs {
            self.before_item(out, depth, empty);
            empty = false;
            self.string(out, &key);
            out.push_str(&self.key_separator);
            self.write(out, &item, depth + 1)?;
        }
        self.after_items(out, depth, empty);
        out.push('}');
        Ok(())
    }

    fn before_item(&self, out: &mut String, depth: usize, first: bool) {
        if !first {
            out.push_str(&self.item_separator);
        }
        self.line_break(out, depth + 1);
    }

    fn after_items(&self, out: &mut String, depth: usize, empty: bool) {
        if !empty {
            self.line_break(out, depth);
        }
    }

    fn line_break(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing into a String cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn number(value: &Value) -> String {
    match python::as_float(value) {
        Some(number) if number.is_nan() => "NaN".into(),
        Some(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Some(number) => python::float(number),
        None => value.to_string(),
    }
}

fn key_text(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
        ValueKind::Number => number(key),
        _ => key.to_string(),
    }
}
