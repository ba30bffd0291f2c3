//! Filters whose Jinja meaning differs from the engine's.

use minijinja::{
    Environment, Error, ErrorKind,
    value::{Kwargs, Rest, Value},
};

use super::{python, python_methods, to_json};

/// Adds the filters to an environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", to_json::to_json);
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("trim", python_methods::trim);
    environment.add_filter("join", join);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("first", |value: &Value| end_item(value, End::First));
    environment.add_filter("last", |value: &Value| end_item(value, End::Last));
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("replace", replace);
    environment.add_filter("indent", indent);
    environment.add_filter("wordcount", |value: &Value| {
        let text = python::text(value);
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    environment.add_filter("center", |value: &Value, width: Option<usize>| {
        python_methods::center(&python::text(value), width.unwrap_or(80), ' ')
    });
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    First,
    Last,
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| invalid(format!("a value of kind {} has no length", value.kind())))
}

fn end_item(value: &Value, end: End) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::UNDEFINED);
    }
    let item = match value.as_str() {
        Some(text) if end == End::First => text.chars().next().map(Value::from),
        Some(text) => text.chars().next_back().map(Value::from),
        None if end == End::First => value.try_iter()?.next(),
        None => value.try_iter()?.last(),
    };
    Ok(item.unwrap_or(Value::UNDEFINED))
}

/// `default(default_value='', boolean=False)`.
fn default(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let fallback = argument(&positional, &named, 0, "default_value")?;
    let if_false = argument(&positional, &named, 1, "boolean")?.is_some_and(|flag| flag.is_true());
    named.assert_all_used()?;
    let replaced = value.is_undefined() || (if_false && !value.is_true());
    Ok(if replaced { fallback.unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

/// `int(default=0, base=10)`.
fn int(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let fallback = argument(&positional, &named, 0, "default")?.unwrap_or_else(|| Value::from(0));
    let base = argument(&positional, &named, 1, "base")?.and_then(|base| base.as_i64()).unwrap_or(10);
    named.assert_all_used()?;
    if value.is_undefined() {
        return Err(invalid("int: the value is undefined"));
    }
    if let Some(number) = python::as_float(value) {
        return Ok(if number.is_finite() { Value::from(number.trunc() as i64) } else { fallback });
    }
    let Some(text) = value.as_str() else {
        let truth = value.is_true();
        return Ok(match value.kind() {
            minijinja::value::ValueKind::Bool => Value::from(i64::from(truth)),
            minijinja::value::ValueKind::Number => value.clone(),
            _ => fallback,
        });
    };
    let digits = text.trim().replace('_', "").to_lowercase();
    let digits = match base {
        16 => digits.strip_prefix("0x").unwrap_or(&digits),
        8 => digits.strip_prefix("0o").unwrap_or(&digits),
        2 => digits.strip_prefix("0b").unwrap_or(&digits),
        _ => &digits,
    };
    let radix = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)).unwrap_or(10);
    if let Ok(number) = i64::from_str_radix(digits, radix) {
        return Ok(Value::from(number));
    }
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite());
    Ok(number.map_or(fallback, |number| Value::from(number.trunc() as i64)))
}

/// `replace(old, new, count=None)`.
fn replace(
    value: &Value,
    old: &Value,
    new: &Value,
    count: Option<i64>,
    named: Kwargs,
) -> Result<String, Error> {
    let count = count.or(named.get::<Option<i64>>("count")?);
    named.assert_all_used()?;
    let (text, old, new) = (python::text(value), python::text(old), python::text(new));
    Ok(match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    })
}

/// `indent(width=4, first=False, blank=False)`.
fn indent(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let margin = match argument(&positional, &named, 0, "width")? {
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => {
                " ".repeat(width.as_usize().ok_or_else(|| invalid("indent: width must be a number or text"))?)
            }
        },
        None => "    ".to_owned(),
    };
    let first = argument(&positional, &named, 1, "first")?.is_some_and(|flag| flag.is_true());
    let blank = argument(&positional, &named, 2, "blank")?.is_some_and(|flag| flag.is_true());
    named.assert_all_used()?;
    let text = python::text(value);
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(&margin);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// An argument by its place or its name.
fn argument(
    positional: &Rest<Value>,
    named: &Kwargs,
    index: usize,
    name: &str,
) -> Result<Option<Value>, Error> {
    match positional.get(index) {
        Some(value) => Ok(Some(value.clone())),
        None if named.has(name) => named.get(name).map(Some),
        None => Ok(None),
    }
}

/// Jinja's `join(separator, attribute)` with Python's text of each item.
fn join(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let separator = match positional.first() {
        Some(separator) => python::text(separator),
        None => named.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    let attribute = match positional.get(1) {
        Some(attribute) => Some(attribute.clone()),
        None => named.get::<Option<Value>>("attribute")?,
    };
    named.assert_all_used()?;
    if value.is_undefined() {
        return Ok(String::new());
    }
    let mut texts = Vec::new();
    if let Some(text) = value.as_str() {
        texts.extend(text.chars().map(String::from));
    } else {
        for item in value.try_iter()? {
            let item = match attribute.as_ref() {
                Some(attribute) => attribute_of(&item, attribute)?,
                None => item,
            };
            texts.push(python::text(&item));
        }
    }
    Ok(texts.join(&separator))
}

fn attribute_of(item: &Value, attribute: &Value) -> Result<Value, Error> {
    match attribute.as_str() {
        Some(path) => path.split('.').try_fold(item.clone(), |value, part| match part.parse::<usize>() {
            Ok(index) => value.get_item_by_index(index),
            Err(_) => value.get_attr(part),
        }),
        None => item.get_item(attribute),
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}
