//! The Jinja environment of chat templates: `transformers`' own, on top of Jinja's Python semantics.

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Kwargs, Rest, Value, ValueKind},
};

use super::{python, python_methods, to_json};

/// The reason by which a template's own refusal is told from its failures.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RaisedByTemplate(pub(super) String);

/// An environment without templates.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(python_methods::call);
    environment.set_formatter(format_value);
    // Errors carry the line of the template.
    environment.set_debug(true);
    add_filters(&mut environment);
    add_tests(&mut environment);
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("cycler", minijinja_contrib::globals::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    Ok(environment)
}

fn add_filters(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", to_json::to_json);
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("trim", python_methods::trim);
    environment.add_filter("join", join);
    environment.add_filter("wordcount", |value: &Value| {
        python::text(value)
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .count()
    });
    environment.add_filter("center", |value: &Value, width: Option<usize>| {
        python_methods::center(&python::text(value), width.unwrap_or(80), ' ')
    });
}

fn add_tests(environment: &mut Environment<'_>) {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    environment.add_test("sequence", |value: &Value| matches!(value.kind(), Seq | String | Map | Undefined));
    environment.add_test("iterable", |value: &Value| {
        matches!(value.kind(), Seq | String | Map | Iterable | Undefined)
    });
    environment.add_test("callable", |value: &Value| {
        matches!(value.kind(), ValueKind::Plain) || value.to_string().starts_with("<macro ")
    });
}

fn format_value(out: &mut Output<'_>, _state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => out.write_str(&python::repr(value)),
    };
    written.map_err(|_| Error::new(ErrorKind::WriteFailure, "cannot write the rendered text"))
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = python::text(message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(RaisedByTemplate(message)))
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

/// A JSON value as templates see it.
pub(super) fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, value)| (key.as_str(), from_json(value))))
        }
    }
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
