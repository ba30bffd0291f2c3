//! The Jinja environment of chat templates: `transformers`' own, on top of Jinja's Python semantics.

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Kwargs, Rest, Tuple, Value, ValueKind},
};

use super::{filters, python, python_methods, source::ITERATE};

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
    filters::add(&mut environment);
    add_tests(&mut environment);
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    environment
        .add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.to_vec()));
    environment.add_function("dict", dict);
    environment.add_function(ITERATE, iterate);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    Ok(environment)
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

/// `dict(mapping or pairs, name=value …)`.
fn dict(positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if let [source] = positional.as_slice() {
        if let Some(entries) = source.as_object().filter(|_| source.kind() == ValueKind::Map) {
            pairs.extend(entries.try_iter_pairs().into_iter().flatten());
        } else {
            for pair in source.try_iter()? {
                pairs.push((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?));
            }
        }
    } else if !positional.is_empty() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// What a `for` loop iterates over: anything but none, which Python refuses and the engine takes for empty.
fn iterate(mut items: Rest<Value>) -> Result<Value, Error> {
    let value = match items.len() {
        1 => items.remove(0),
        _ => Value::from(Tuple::from(items.to_vec())),
    };
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "none is not iterable"));
    }
    Ok(value)
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = python::text(message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(RaisedByTemplate(message)))
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
