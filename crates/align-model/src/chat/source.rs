//! A template's source, made ready for an engine that differs from Jinja in three things.
//!
//! `{% generation %}` is an extension by which a template marks what the assistant wrote: its tags become those of a
//! scope whose ends call functions that note the place. A loop over none fails in Python and is taken for empty here: what a loop iterates over goes through a
//! function that refuses it. An assignment to a namespace does not count as its use here, so a macro or call block would
//! not see the namespace: the assigned expression comes to mention it. Everything else of the source stays as it is, so
//! that whitespace control acts on the tags as written and line numbers stay right.

/// The name of the function that a generation block calls where it begins.
pub(super) const GENERATION_START: &str = "__generation_start";

/// The name of the function that a generation block calls where it ends.
pub(super) const GENERATION_END: &str = "__generation_end";

/// The name of the function that what a loop iterates over goes through.
pub(super) const ITERATE: &str = "__iterate";

/// A source that the engine can parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// The source.
    pub(super) text: String,
    /// Whether the template has generation blocks.
    pub(super) generation_blocks: bool,
    /// Whether one of them lies in a macro or another block whose text is not written at once, so that its place is
    /// not known while it is rendered.
    pub(super) misplaced_generation_block: bool,
}

impl Source {
    /// Makes a source ready.
    pub(super) fn new(written: &str) -> Self {
        let written = written.replace("\r\n", "\n").replace('\r', "\n");
        let mut source = Self {
            text: String::with_capacity(written.len()),
            generation_blocks: false,
            misplaced_generation_block: false,
        };
        let (mut copied, mut captures) = (0, 0usize);
        for tag in tags(&written) {
            let body = &written[tag.start..tag.end];
            match captures_text(statement(body)) {
                Some(true) => captures += 1,
                Some(false) => captures = captures.saturating_sub(1),
                None => {}
            }
            source.misplaced_generation_block |= captures > 0 && statement(body) == "generation";
            source.text.push_str(&written[copied..tag.start]);
            source.push_tag(body);
            copied = tag.end;
        }
        source.text.push_str(&written[copied..]);
        source
    }

    /// Appends the inside of a block tag.
    fn push_tag(&mut self, body: &str) {
        let word = statement(body);
        let (before, after) = body.split_at(body.find(word).unwrap_or(0));
        let after = &after[word.len()..];
        self.text.push_str(before);
        match word {
            "generation" => {
                self.generation_blocks = true;
                self.text.extend(["with ", GENERATION_START, " = ", GENERATION_START, "()"]);
            }
            "endgeneration" => {
                self.text.extend(["set ", GENERATION_END, " = ", GENERATION_END, "() %}{% endwith"]);
            }
            _ => match (iterated(word), assigned_namespace(word)) {
                (Some((start, end)), _) => {
                    self.text.extend([&word[..start], ITERATE, "(", &word[start..end], ")", &word[end..]]);
                }
                (None, Some((namespace, value))) => {
                    self.text.extend([&word[..value], "[", namespace, ", (", &word[value..], ")][1]"]);
                }
                (None, None) => self.text.push_str(word),
            },
        }
        self.text.push_str(after);
    }
}

/// The statement of a tag, without whitespace control and surrounding space.
fn statement(body: &str) -> &str {
    body.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

/// Whether a statement begins (or ends) a block whose text is kept aside before it is written.
fn captures_text(statement: &str) -> Option<bool> {
    let (word, rest) =
        statement.split_once(|c: char| c.is_whitespace() || c == '(').unwrap_or((statement, ""));
    match word {
        "macro" | "call" | "filter" => Some(true),
        "set" if !rest.contains('=') => Some(true),
        "endmacro" | "endcall" | "endfilter" | "endset" => Some(false),
        _ => None,
    }
}

/// The insides of all block tags, outside of comments and raw blocks.
fn tags(source: &str) -> Vec<std::ops::Range<usize>> {
    let mut tags = Vec::new();
    let mut position = 0;
    while let Some(offset) = source[position..].find('{') {
        let start = position + offset;
        let rest = &source[start..];
        position = if rest.starts_with("{#") {
            rest.find("#}").map_or(source.len(), |end| start + end + 2)
        } else if rest.starts_with("{{") {
            tag_end(source, start + 2, "}}").unwrap_or(source.len())
        } else if rest.starts_with("{%") {
            let Some(end) = tag_end(source, start + 2, "%}") else { break };
            let inside = start + 2..end - 2;
            let raw = statement(&source[inside.clone()]) == "raw";
            tags.push(inside);
            if raw { raw_end(source, end) } else { end }
        } else {
            start + 1
        };
    }
    tags
}

/// Where in a `for` statement the expression lies that is iterated over.
fn iterated(statement: &str) -> Option<(usize, usize)> {
    if !statement.strip_prefix("for").is_some_and(|rest| rest.starts_with(char::is_whitespace)) {
        return None;
    }
    let words = top_level_words(statement);
    let (_, start) = *words.iter().find(|(at, end)| &statement[*at..*end] == "in")?;
    let ends_expression =
        |(at, end): &&(usize, usize)| *at >= start && matches!(&statement[*at..*end], "if" | "recursive");
    let end = words.iter().find(ends_expression).map_or(statement.len(), |(at, _)| *at);
    let expression = &statement[start..end];
    let leading = expression.len() - expression.trim_start().len();
    let trailing = expression.len() - expression.trim_end().len();
    (leading < expression.len()).then_some((start + leading, end - trailing))
}

/// The namespace of a `set namespace.name = value` statement and where the value begins.
fn assigned_namespace(statement: &str) -> Option<(&str, usize)> {
    let target =
        statement.strip_prefix("set").filter(|rest| rest.starts_with(char::is_whitespace))?.trim_start();
    let (namespace, rest) = target.split_once('.')?;
    let (name, value) = rest.split_once('=')?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let value = value.trim_start();
    (is_name(namespace.trim()) && is_name(name.trim()) && !value.is_empty())
        .then(|| (namespace.trim(), statement.len() - value.len()))
}

/// The words of a statement that lie in no brackets and no string.
fn top_level_words(statement: &str) -> Vec<(usize, usize)> {
    let bytes = statement.as_bytes();
    let (mut words, mut depth, mut quote, mut word, mut index) = (Vec::new(), 0usize, None, None, 0);
    while index <= bytes.len() {
        let byte = bytes.get(index).copied().unwrap_or(b' ');
        let in_word = quote.is_none() && (byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii());
        if let (false, Some(start)) = (in_word, word) {
            if depth == 0 {
                words.push((start, index));
            }
            word = None;
        } else if in_word && word.is_none() {
            word = Some(index);
        }
        match (quote, byte) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        index += 1;
    }
    words
}

/// The end of a tag, string literals inside it skipped.
fn tag_end(source: &str, from: usize, close: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut quote = None;
    let mut index = from;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[index..].starts_with(close.as_bytes()) => return Some(index + close.len()),
            _ => {}
        }
        index += 1;
    }
    None
}

/// The end of the `endraw` tag that closes a raw block.
fn raw_end(source: &str, from: usize) -> usize {
    let mut position = from;
    while let Some(offset) = source[position..].find("{%") {
        let start = position + offset + 2;
        let Some(length) = source[start..].find("%}") else { break };
        if statement(&source[start..start + length]) == "endraw" {
            return start + length + 2;
        }
        position = start;
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(source: &str) -> String {
        Source::new(source).text
    }

    #[test]
    fn generation_tags_are_rewritten_in_place() {
        let source = Source::new("a{%- generation -%}b{% endgeneration%}\n{%+generation%}");
        assert!(source.generation_blocks && !source.misplaced_generation_block);
        let start = "with __generation_start = __generation_start()";
        let end = "set __generation_end = __generation_end() %}{% endwith";
        assert_eq!(source.text, format!("a{{%- {start} -%}}b{{% {end}%}}\n{{%+{start}%}}"));
        assert!(Source::new("{% raw %}{% endraw %}{% generation %}x{% endgeneration %}").generation_blocks);
    }

    #[test]
    fn generation_blocks_in_captured_text_are_found() {
        for (source, misplaced) in [
            ("{% macro f() %}{% generation %}{% endgeneration %}{% endmacro %}", true),
            ("{% set x %}{% generation %}{% endgeneration %}{% endset %}", true),
            ("{%- filter upper -%}{%- generation -%}{% endgeneration %}{% endfilter %}", true),
            ("{% macro f(a=1) %}{% endmacro %}{% generation %}{% endgeneration %}", false),
            ("{% set x = 1 %}{% set y|trim %}{% endset %}{% generation %}{% endgeneration %}", false),
        ] {
            assert_eq!(Source::new(source).misplaced_generation_block, misplaced, "{source}");
        }
    }

    #[test]
    fn text_comments_strings_and_raw_blocks_are_left_alone() {
        for source in [
            "generation {# {% generation %} {% for a in b %} #}",
            "{{ '{% generation %}' }}",
            "{{ \"}} \\\"{% generation %}\" }}",
            "{% raw %}{% generation %}{% for a in b %}{% endgeneration %}{%- endraw -%}",
            "{% set generation = 1 %}{{ generation }}{% if generation %}{% endif %}",
            "{ % generation %}",
            "{% set x = '{% generation %}' %}",
            "{% if a in b %}{% endif %}{% format in b %}",
        ] {
            let prepared = Source::new(source);
            assert_eq!(prepared.text, source);
            assert!(!prepared.generation_blocks, "{source}");
        }
    }

    #[test]
    fn loops_go_through_a_function() {
        for (source, expected) in [
            ("{% for a in b %}", "{% for a in __iterate(b) %}"),
            ("{%- for a, (b, c) in d.items() -%}", "{%- for a, (b, c) in __iterate(d.items()) -%}"),
            ("{%for a in b|f('if') if a in c%}", "{%for a in __iterate(b|f('if')) if a in c%}"),
            ("{% for a in (b if c else d) %}", "{% for a in __iterate((b if c else d)) %}"),
            ("{% for a in b recursive %}", "{% for a in __iterate(b) recursive %}"),
            ("{% for a in 1, 2 %}", "{% for a in __iterate(1, 2) %}"),
            ("{% for inner\nin\nb %}", "{% for inner\nin\n__iterate(b) %}"),
            ("{% for é in ['é', \"]\"] %}", "{% for é in __iterate(['é', \"]\"]) %}"),
        ] {
            assert_eq!(prepared(source), expected);
        }
    }

    #[test]
    fn assignments_mention_their_namespace() {
        for (source, expected) in [
            ("{%- set ns.a = ns.b + 1 -%}", "{%- set ns.a = [ns, (ns.b + 1)][1] -%}"),
            ("{% set ns.a = x if y else z %}", "{% set ns.a = [ns, (x if y else z)][1] %}"),
            ("{% set a = b.c == d %}", "{% set a = b.c == d %}"),
            ("{% set ns.a %}b{% endset %}", "{% set ns.a %}b{% endset %}"),
            ("{% set a = 1.5 %}", "{% set a = 1.5 %}"),
        ] {
            assert_eq!(prepared(source), expected);
        }
    }

    #[test]
    fn line_ends_are_unified() {
        assert_eq!(prepared("a\r\nb\rc"), "a\nb\nc");
    }

    #[test]
    fn unclosed_tags_do_no_harm() {
        for source in
            ["{", "{{", "{% generation", "{#", "{{ 'a", "{% raw %}{%", "é{%é", "{% for", "{% for a in", "{%}"]
        {
            assert_eq!(prepared(source), source);
        }
        assert_eq!(prepared("{% for a in %}{% for %}"), "{% for a in %}{% for %}");
    }
}
