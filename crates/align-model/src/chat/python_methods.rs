//! Methods of Python's strings, lists and dictionaries that templates call.

use minijinja::{
    Error, ErrorKind, State,
    value::{Kwargs, Value, ValueKind, from_args},
};

use super::python;

/// Answers a method call on a value; what is not here is left to the general compatibility layer.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let answer = match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Seq => list_method(value, method, args),
        ValueKind::Map => map_method(value, method, args),
        _ => Ok(None),
    }?;
    match answer {
        Some(answer) => Ok(answer),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// The `trim` filter.
pub(super) fn trim(value: &Value, chars: Option<String>) -> String {
    strip(&python::text(value), chars.as_deref(), Sides::Both).to_owned()
}

/// `str.center`.
pub(super) fn center(text: &str, width: usize, fill: char) -> String {
    let missing = width.saturating_sub(text.chars().count());
    // Python puts the odd one to the left where the width is odd.
    let left = missing / 2 + (missing & width & 1);
    let pad = |count: usize| fill.to_string().repeat(count);
    format!("{}{text}{}", pad(left), pad(missing - left))
}

#[derive(Clone, Copy, PartialEq)]
enum Sides {
    Left,
    Right,
    Both,
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" => strip_call(text, args, Sides::Both)?,
        "lstrip" => strip_call(text, args, Sides::Left)?,
        "rstrip" => strip_call(text, args, Sides::Right)?,
        "split" => split_call(text, args, Sides::Left)?,
        "rsplit" => split_call(text, args, Sides::Right)?,
        "splitlines" => splitlines(text, args)?,
        "startswith" => affix(text, args, |text, affix| text.starts_with(affix))?,
        "endswith" => affix(text, args, |text, affix| text.ends_with(affix))?,
        "find" | "rfind" | "index" | "rindex" => find(text, method, args)?,
        "count" => count(text, args)?,
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "swapcase" => Value::from(text.chars().map(swap_case).collect::<String>()),
        "isspace" => Value::from(!text.is_empty() && text.chars().all(python::is_space)),
        "isdecimal" | "isdigit" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        "isprintable" => Value::from(text.chars().all(python::is_printable)),
        "isidentifier" => Value::from(is_identifier(text)),
        "join" => join(text, args)?,
        _ => return edge_method(text, method, args),
    }))
}

/// Methods that cut or pad at an edge.
fn edge_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) =
                text.split_once(non_empty(separator)?).map_or((text, None), |(a, b)| (a, Some(b)));
            parts([before, after.map_or("", |_| separator), after.unwrap_or_default()])
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) =
                text.rsplit_once(non_empty(separator)?).map_or((None, text), |(a, b)| (Some(a), b));
            parts([before.unwrap_or_default(), before.map_or("", |_| separator), after])
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase().replace('ß', "ss"))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let zeros = "0".repeat(width.saturating_sub(text.chars().count()));
            Value::from(format!("{sign}{zeros}{digits}"))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let fill = fill.and_then(|fill| fill.chars().next()).unwrap_or(' ');
            let padding = fill.to_string().repeat(width.saturating_sub(text.chars().count()));
            Value::from(match method {
                "ljust" => format!("{text}{padding}"),
                "rjust" => format!("{padding}{text}"),
                _ => center(text, width, fill),
            })
        }
        _ => return Ok(None),
    }))
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let found = list.try_iter()?.position(|item| item == *wanted);
            Value::from(found.ok_or_else(|| invalid(format!("{} is not in the list", python::repr(wanted))))?)
        }
        "copy" => list.clone(),
        _ => return Ok(None),
    }))
}

fn map_method(map: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    if method != "copy" {
        return Ok(None);
    }
    let () = from_args(args)?;
    Ok(Some(map.clone()))
}

fn strip<'a>(text: &'a str, chars: Option<&str>, sides: Sides) -> &'a str {
    let stripped = |c: char| chars.map_or_else(|| python::is_space(c), |chars| chars.contains(c));
    let text = if sides == Sides::Right { text } else { text.trim_start_matches(stripped) };
    if sides == Sides::Left { text } else { text.trim_end_matches(stripped) }
}

fn strip_call(text: &str, args: &[Value], sides: Sides) -> Result<Value, Error> {
    let (chars,): (Option<String>,) = from_args(args)?;
    Ok(Value::from(strip(text, chars.as_deref(), sides)))
}

fn split_call(text: &str, args: &[Value], from: Sides) -> Result<Value, Error> {
    let (separator, limit, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => named.get::<Option<Value>>("sep")?,
    };
    let limit = match limit {
        Some(limit) => limit,
        None => named.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    named.assert_all_used()?;
    let limit = usize::try_from(limit).ok().and_then(|limit| limit.checked_add(1)).unwrap_or(usize::MAX);
    let separator = separator.filter(|separator| !separator.is_none());
    let pieces: Vec<&str> = match separator.as_ref().map(|separator| separator.as_str()) {
        Some(Some(separator)) => {
            let separator = non_empty(separator)?;
            if from == Sides::Left {
                text.splitn(limit, separator).collect()
            } else {
                let mut pieces: Vec<_> = text.rsplitn(limit, separator).collect();
                pieces.reverse();
                pieces
            }
        }
        Some(None) => return Err(invalid("split: the separator must be text")),
        None => split_whitespace(text, limit, from),
    };
    Ok(pieces.into_iter().map(Value::from).collect())
}

/// Splits at runs of whitespace into at most `limit` pieces, counted from one side; the piece at the limit keeps the
/// whitespace of its far end.
fn split_whitespace(text: &str, limit: usize, from: Sides) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = strip(text, None, from);
    while !rest.is_empty() && pieces.len() + 1 < limit {
        let (piece, remainder) = if from == Sides::Left {
            rest.find(python::is_space).map_or((rest, ""), |at| rest.split_at(at))
        } else {
            let space = rest.char_indices().rev().find(|(_, c)| python::is_space(*c));
            space.map_or((rest, ""), |(at, c)| (&rest[at + c.len_utf8()..], &rest[..at]))
        };
        pieces.push(piece);
        rest = strip(remainder, None, from);
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    if from == Sides::Right {
        pieces.reverse();
    }
    pieces
}

fn splitlines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = keep.or(named.get::<Option<bool>>("keepends")?).unwrap_or(false);
    named.assert_all_used()?;
    let is_break = |c: char| {
        matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_break) {
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep { at + width } else { at }]));
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Ok(Value::from(lines))
}

/// The part of a text from a start to an end, counted in characters as Python slices count.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let length = text.chars().count() as i64;
    let place = |index: i64| (if index < 0 { index + length } else { index }).clamp(0, length) as usize;
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    (start, if start < end { &text[byte(start)..byte(end)] } else { "" })
}

fn affix(text: &str, args: &[Value], holds: fn(&str, &str) -> bool) -> Result<Value, Error> {
    let (wanted, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let (_, text) = window(text, start, end);
    if let Some(wanted) = wanted.as_str() {
        return Ok(Value::from(holds(text, wanted)));
    }
    if !wanted.is_tuple() {
        return Err(invalid(format!(
            "startswith and endswith take text or a tuple of texts, found {}",
            wanted.kind()
        )));
    }
    Ok(Value::from(
        wanted.try_iter()?.any(|wanted| wanted.as_str().is_some_and(|wanted| holds(text, wanted))),
    ))
}

fn find(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let (offset, part) = window(text, start, end);
    let byte = if method.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
    match byte {
        Some(byte) => Ok(Value::from(offset + part[..byte].chars().count())),
        None if method.ends_with("index") => Err(invalid("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn count(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    Ok(Value::from(window(text, start, end).1.matches(wanted).count()))
}

fn join(separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    if let Some(text) = items.as_str() {
        let characters: Vec<String> = text.chars().map(String::from).collect();
        return Ok(Value::from(characters.join(separator)));
    }
    let mut texts = Vec::new();
    for item in items.try_iter()? {
        match item.as_str() {
            Some(text) => texts.push(text.to_owned()),
            None => return Err(invalid(format!("join: expected text, found {}", item.kind()))),
        }
    }
    Ok(Value::from(texts.join(separator)))
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    out
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next();
    first.into_iter().flat_map(char::to_uppercase).chain(characters.as_str().to_lowercase().chars()).collect()
}

fn swap_case(character: char) -> String {
    if character.is_uppercase() {
        character.to_lowercase().collect()
    } else {
        character.to_uppercase().collect()
    }
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_numeric())
        && !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn parts(pieces: [&str; 3]) -> Value {
    Value::from(minijinja::value::Tuple::from(pieces.map(Value::from)))
}

fn non_empty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() { Err(invalid("empty separator")) } else { Ok(separator) }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}
