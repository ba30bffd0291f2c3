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

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value as Json};

    use crate::chat::{ChatTemplate, ChatTemplates, Message, RenderOptions};

    const VARIABLES: &str = r#"{"d": {"a": 1, "b": [1, 2.5, "x", null, true], "items": {"type": "string"}, "type": "array", "keys": 7, "n": null}, "l": [3, 1, 2], "s": "  Hello World  ", "f": 1.0, "i": 7, "t": true, "people": [{"name": "bob", "age": 3}, {"name": "Al", "age": 5}, {"name": "cy", "age": 3}], "u": "é日本😀", "tricky": "it's \"q\"\n<b>&amp;"}"#;

    fn render(source: &str) -> String {
        let template = ChatTemplate::new("default", source).unwrap();
        let variables: Map<String, Json> = serde_json::from_str(VARIABLES).unwrap();
        let options = RenderOptions { variables, ..RenderOptions::default() };
        ChatTemplates::single(template, Map::new())
            .render(&[Message::user("a")], None, &options)
            .unwrap()
            .text
    }

    /// The expectations were computed with Jinja 3.1.6 in the environment of `transformers`.
    #[test]
    #[rustfmt::skip]
    fn templates_render_as_in_python() {
        for (source, expected) in [
            ("{{ d }}", "{'a': 1, 'b': [1, 2.5, 'x', None, True], 'items': {'type': 'string'}, 'type': 'array', 'keys': 7, 'n': None}"),
            ("{{ [1.0, 1e20, none, true, 'é', \"it's\", (1,), {}] }}", "[1.0, 1e+20, None, True, 'é', \"it's\", (1,), {}]"),
            ("{{ d.missing }}|{{ none.a }}|{{ i.a }}|{{ s['a'] }}", "|||"),
            ("{{ undefined_thing | length }}|{{ undefined_thing | first }}|{{ undefined_thing is iterable }}|{{ undefined_thing ~ 'a' }}", "0||True|a"),
            ("{{ l[::-1] }} {{ s[2:5] }} {{ u[::-1] }} {{ l[5] }}|", "[2, 1, 3] Hel 😀本日é |"),
            ("{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 6 / 2 }} {{ 2 ** 10 }} {{ 0.1 + 0.2 }} {{ 1 == 1.0 }} {{ 1 < 2 < 3 }}", "3 -4 2 3.0 1024 0.30000000000000004 True True"),
            ("{{ d.get('a') }} {{ d.get('z', 5) }} {{ d.keys() | list }} {{ d['items'] }}{% for k, v in d.items() %} {{ k }}={{ v }}{% endfor %}", "1 5 ['a', 'b', 'items', 'type', 'keys', 'n'] {'type': 'string'} a=1 b=[1, 2.5, 'x', None, True] items={'type': 'string'} type=array keys=7 n=None"),
            ("{{ s.strip() }}|{{ 'a,b,c'.split(',', 1) }} {{ 'a b  c '.split(None, 1) }} {{ 'a b c'.rsplit(' ', maxsplit=1) }} {{ 'a-b'.partition('-') }} {{ 'abc'.removeprefix('a') }} {{ '7'.zfill(3) }}", "Hello World|['a', 'b,c'] ['a', 'b  c '] ['a b', 'c'] ('a', '-', 'b') bc 007"),
            ("{{ 'abc'.startswith(('x', 'a')) }} {{ 'abcabc'.find('c', 3) }} {{ 'aXbX'.count('X') }} {{ \"they're\".title() }} {{ 'a\\r\\nb\\n'.splitlines() }} {{ 'ab'.center(5, '*') }}", "True 5 2 They'Re ['a', 'b'] **ab*"),
            ("{{ d | tojson }}", "{\"a\": 1, \"b\": [1, 2.5, \"x\", null, true], \"items\": {\"type\": \"string\"}, \"type\": \"array\", \"keys\": 7, \"n\": null}"),
            ("{{ l | tojson(indent=2) }} {{ [] | tojson(indent=2) }}", "[\n  3,\n  1,\n  2\n] []"),
            ("{{ u | tojson(ensure_ascii=true) }} {{ tricky | tojson }} {{ {'b': 1, 'a': [2]} | tojson(sort_keys=true, separators=(',', ':')) }} {{ 1.0 | tojson }}", "\"\\u00e9\\u65e5\\u672c\\ud83d\\ude00\" \"it's \\\"q\\\"\\n<b>&amp;\" {\"a\":[2],\"b\":1} 1.0"),
            ("{{ s is sequence }} {{ d is sequence }} {{ s is iterable }} {{ i is iterable }} {{ d is mapping }} {{ t is number }} {{ t is integer }} {{ f is float }} {{ none is none }}", "True True True False True True False True True"),
            ("{{ none | default('x', boolean=true) }} {{ 'x' | int }} {{ '0x1A' | int(base=16) }} {{ 'aaa' | replace('a', 'b', 1) }} {{ 'a\\n\\nb' | indent(2, first=true) }}|{{ l | join(', ') }} {{ 2.5 | round }}", "x 0 26 baa   a\n\n  b|3, 1, 2 2.0"),
            ("{{ people | selectattr('age', 'equalto', 3) | map(attribute='name') | list }} {{ people | sort(attribute='age') | map(attribute='name') | join(' ') }} {{ people | groupby('age') | length }} {{ d | dictsort | first }}", "['bob', 'cy'] bob cy Al 2 ('a', 1)"),
            ("{% set ns = namespace(n=0) %}{% macro add(x) %}{% set ns.n = ns.n + x %}{% endmacro %}{% for q in l %}{{ add(q) }}{% endfor %}{{ ns.n }}", "6"),
            ("{% for q in range(9) %}{% if q == 1 %}{% continue %}{% elif q == 4 %}{% break %}{% endif %}{{ q }}{{ loop.last }}{% else %}x{% endfor %}", "0False2False3False"),
            ("{% set x = 1 %}{% for q in l %}{% set x = q %}{% endfor %}{{ x }}{% set y %}a{{ x }}{% endset %}{{ y }}{% set a, b = 1, 2 %}{{ a + b }}", "1a13"),
            ("{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ caller() if caller }}]{% endmacro %}{{ m(1) }}{{ m(b=3, a=0) }}{% call m(5) %}body{% endcall %}", "[12][03][52body]"),
            ("  {% if true %}\n  a\n  {%- endif %}  \n  {{ 'b' }}\n {# c #}\nd\n\n", "  a  \n  b\nd\n"),
            ("{%+ if true %} x {% endif +%}\n  y {{- 'z' -}}  w", " x \n  yzw"),
            ("{{ 'it\\'s' }}{{ '\\u00e9\\n\\d' }}{{ \"a\" 'b' }}{% raw %}{{ x }}{% endraw %}", "it'sé\n\\dab{{ x }}"),
            ("{{ dict(a=1, **{'b': 2}) if false else dict(a=1) }} {{ dict([('a', 1)], c=3) }}", "{'a': 1} {'a': 1, 'c': 3}"),
            ("{{ '%s is %.1f' | format('x', 2.55) }} {{ '{:>4}|{:.2f}'.format('a', 3.14159) }}", "x is 2.5    a|3.14"),
            ("{% set j = joiner('|') %}{% for q in l %}{{ j() }}{{ q }}{% endfor %}{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "3|1|2aba"),
        ] {
            assert_eq!(render(source), expected, "{source}");
        }
    }
}
