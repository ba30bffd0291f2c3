//! Samples as text, with what is learnt marked.

use align_model::inspect::{RenderedSample, Segment};

use super::{Marks, Report};

/// Characters of a piece that are shown, at most.
const SHOWN: usize = 600;

impl Report {
    pub(super) fn samples(&mut self, samples: &[RenderedSample], marks: Marks) {
        for sample in samples {
            let RenderedSample { place, tokens, targets, .. } = sample;
            let how = how(marks);
            self.line("sample", format_args!("{place}: {tokens} tokens, {targets} of them learnt, {how}"));
            self.quote(&marked(sample, marks));
        }
    }

    /// A text apart from what is said of it.
    pub(super) fn quote(&mut self, text: &str) {
        for line in text.lines() {
            self.text.push_str("  │ ");
            self.text.push_str(line);
            self.text.push('\n');
        }
    }
}

/// Where what is learnt is seen.
pub(super) fn how(marks: Marks) -> &'static str {
    match marks {
        Marks::Colour => "in colour",
        Marks::Brackets => "between ⟦ and ⟧",
    }
}

fn marked(sample: &RenderedSample, marks: Marks) -> String {
    sample.segments.iter().map(|Segment { text, learnt }| piece(text, *learnt, marks)).collect()
}

/// A piece of a sample, marked if it is learnt.
pub(super) fn piece(text: &str, learnt: bool, marks: Marks) -> String {
    let text = shown(text);
    match (learnt, marks) {
        (false, _) => text,
        (true, Marks::Brackets) => format!("⟦{text}⟧"),
        // Line by line: what stands in front of a line keeps its own colour.
        (true, Marks::Colour) => {
            let lines = text.split('\n').map(|line| format!("\u{1b}[32m{line}\u{1b}[0m"));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

/// The text without its middle if it is long, and without what a terminal would obey.
fn shown(text: &str) -> String {
    let spelt = |c: char| {
        if c.is_control() && c != '\n' && c != '\t' { c.escape_default().to_string() } else { c.into() }
    };
    let harmless = |text: &str| text.chars().map(spelt).collect::<String>();
    let count = text.chars().count();
    if count <= SHOWN {
        return harmless(text);
    }
    let cut = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    let (head, tail) = (&text[..cut(SHOWN / 2)], &text[cut(count - SHOWN / 2)..]);
    format!("{} […{} characters…] {}", harmless(head), count - SHOWN, harmless(tail))
}

#[cfg(test)]
mod tests {
    use align_model::inspect::Place;

    use super::*;

    fn sample(segments: &[(&str, bool)]) -> RenderedSample {
        let segments = segments.iter().map(|&(text, learnt)| Segment { text: text.into(), learnt }).collect();
        RenderedSample { place: Place { file: "f".into(), line: 1 }, tokens: 3, targets: 1, segments }
    }

    #[test]
    fn what_is_learnt_is_marked() {
        let sample = sample(&[("a\n", false), ("b\nc", true)]);
        assert_eq!(marked(&sample, Marks::Brackets), "a\n⟦b\nc⟧");
        assert_eq!(marked(&sample, Marks::Colour), "a\n\u{1b}[32mb\u{1b}[0m\n\u{1b}[32mc\u{1b}[0m");
    }

    #[test]
    fn long_and_hostile_texts_are_tamed() {
        assert_eq!(shown("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        let long = shown(&"é".repeat(1000));
        assert!(long.contains("[…400 characters…]"), "{long}");
        assert_eq!(long.matches('é').count(), SHOWN);
    }
}
