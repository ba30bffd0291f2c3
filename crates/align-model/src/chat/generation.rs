//! `{% generation %}`: the block by which a template marks what the assistant wrote.
//!
//! The block is an extension of Jinja. Before a template is parsed, its tags are rewritten into a call block, whose
//! function notes where its text begins and ends; everything else of the source stays as it is, so that whitespace
//! control acts on the tags as written and line numbers stay right.

use std::{
    borrow::Cow,
    io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use minijinja::{
    Error, State,
    value::{Kwargs, Value},
};

/// The name of the function that a rewritten block calls.
pub(super) const FUNCTION: &str = "__generation_block";

/// The source with its generation tags rewritten, and whether it has any.
pub(super) fn rewrite(source: &str) -> (Cow<'_, str>, bool) {
    let mut out = String::new();
    let mut copied = 0;
    let mut position = 0;
    while let Some(offset) = source[position..].find('{') {
        let start = position + offset;
        let rest = &source[start..];
        position = if rest.starts_with("{#") {
            rest.find("#}").map_or(source.len(), |end| start + end + 2)
        } else if rest.starts_with("{{") {
            tag_end(source, start + 2, "}}")
        } else if rest.starts_with("{%") {
            let end = tag_end(source, start + 2, "%}");
            let body = source.get(start + 2..end.saturating_sub(2)).unwrap_or_default();
            let body_start = start + 2;
            let word = body.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
            let replacement = match word {
                "generation" => Some(format!("call {FUNCTION}()")),
                "endgeneration" => Some("endcall".to_owned()),
                _ => None,
            };
            if let Some(replacement) = replacement {
                let word_start = body_start + body.find(word).unwrap_or(0);
                out.push_str(&source[copied..word_start]);
                out.push_str(&replacement);
                copied = word_start + word.len();
            }
            if word == "raw" { raw_end(source, end) } else { end }
        } else {
            start + 1
        };
    }
    if copied == 0 {
        return (Cow::Borrowed(source), false);
    }
    out.push_str(&source[copied..]);
    (Cow::Owned(out), true)
}

/// The end of a tag, string literals inside it skipped.
fn tag_end(source: &str, from: usize, close: &str) -> usize {
    let bytes = source.as_bytes();
    let mut quote = None;
    let mut index = from;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[index..].starts_with(close.as_bytes()) => return index + close.len(),
            (None, _) => {}
        }
        index += 1;
    }
    source.len()
}

/// The end of the `endraw` tag that closes a raw block.
fn raw_end(source: &str, from: usize) -> usize {
    let mut position = from;
    while let Some(offset) = source[position..].find("{%") {
        let start = position + offset;
        let end = source[start..].find("%}").map_or(source.len(), |end| start + end + 2);
        let body = source.get(start + 2..end.saturating_sub(2)).unwrap_or_default();
        if body.trim_matches(['-', '+']).trim() == "endraw" {
            return end;
        }
        position = start + 2;
    }
    source.len()
}

/// Notes where the generation blocks of one rendering lie.
#[derive(Debug, Default)]
pub(super) struct GenerationTracker {
    /// Characters written so far at the top level.
    written: AtomicUsize,
    blocks: Mutex<Vec<(usize, String)>>,
}

impl GenerationTracker {
    /// The function that rewritten blocks call.
    pub(super) fn function(self: &Arc<Self>) -> Value {
        let tracker = Arc::clone(self);
        Value::from_function(move |state: &mut State<'_, '_>, named: Kwargs| -> Result<Value, Error> {
            let caller: Value = named.get("caller")?;
            let value = caller.call(state, &[])?;
            let start = tracker.written.load(Ordering::Relaxed);
            tracker.blocks.lock().unwrap_or_else(PoisonError::into_inner).push((start, value.to_string()));
            Ok(value)
        })
    }

    /// A writer that collects the text and counts its characters.
    pub(super) fn writer<'a>(&'a self, text: &'a mut Vec<u8>) -> CountingWriter<'a> {
        CountingWriter { tracker: self, text }
    }

    /// The character ranges of the blocks in the finished text, and whether every one of them lies where it was noted.
    pub(super) fn spans(&self, text: &str) -> (Vec<Range<usize>>, bool) {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let starts: Vec<usize> = text.char_indices().map(|(index, _)| index).chain([text.len()]).collect();
        let in_place = |(start, block): &(usize, String)| {
            starts.get(*start).is_some_and(|&byte| text[byte..].starts_with(block.as_str()))
        };
        let all_in_place = blocks.iter().all(in_place);
        (blocks.iter().map(|(start, block)| *start..*start + block.chars().count()).collect(), all_in_place)
    }
}

/// Collects what a template writes at its top level.
#[derive(Debug)]
pub(super) struct CountingWriter<'a> {
    tracker: &'a GenerationTracker,
    text: &'a mut Vec<u8>,
}

impl io::Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Every character has exactly one byte that is not a continuation byte.
        let characters = bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        self.tracker.written.fetch_add(characters, Ordering::Relaxed);
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_rewritten_in_place() {
        let (source, found) = rewrite("a{%- generation -%}b{% endgeneration%}\n{%+generation%}");
        assert!(found);
        assert_eq!(source, format!("a{{%- call {FUNCTION}() -%}}b{{% endcall%}}\n{{%+call {FUNCTION}()%}}"));
    }

    #[test]
    fn text_comments_strings_and_raw_blocks_are_left_alone() {
        for source in [
            "generation {# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{{ \"}} \\\"{% generation %}\" }}",
            "{% raw %}{% generation %}{% endgeneration %}{%- endraw -%}",
            "{% set generation = 1 %}{{ generation }}{% if generation %}{% endif %}",
            "{ % generation %}",
            "{% set x = '{% generation %}' %}",
        ] {
            assert_eq!(rewrite(source), (Cow::Borrowed(source), false), "{source}");
        }
        assert!(rewrite("{% raw %}{% endraw %}{% generation %}x{% endgeneration %}").1);
    }

    #[test]
    fn unclosed_tags_do_no_harm() {
        for source in ["{", "{{", "{% generation", "{#", "{{ 'a", "{% raw %}{%", "é{%é"] {
            assert!(!rewrite(source).1, "{source}");
        }
    }
}
