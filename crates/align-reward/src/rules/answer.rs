//! Where in a text the answer is.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{rollout::Rollout, score::Score};

/// How the answer is found in a completion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerFormat {
    /// Only what follows the last of these counts, such as `</think>`; a completion without it has no answer.
    pub after: Option<String>,
    /// What of the rest is the answer.
    pub extract: Extraction,
}

/// Which part of a text is the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extraction {
    /// All of it, without white space around it.
    #[default]
    Whole,
    /// What the last `\boxed{…}` holds.
    Boxed,
    /// The line after the last of this mark, such as GSM8K's `####`.
    Marker(String),
    /// What stands between the last `<tag>` and its `</tag>`.
    Tag(String),
    /// What the last fenced block of code holds.
    CodeBlock,
    /// The last number.
    LastNumber,
    /// The first that there is of: a box, a line after `####`, a tag `answer`, what follows the last "answer is" or
    /// "answer:", the last number, the whole text.
    Any,
}

/// Where the right answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Truth {
    /// The column that has it.
    pub column: String,
    /// What of the column is the answer.
    pub extract: Extraction,
}

impl Default for Truth {
    fn default() -> Self {
        Self { column: "answer".into(), extract: Extraction::Whole }
    }
}

impl AnswerFormat {
    /// The answer of a text, if it has one.
    #[must_use]
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let text = match &self.after {
            Some(mark) => text.rsplit_once(mark.as_str())?.1,
            None => text,
        };
        self.extract.find(text)
    }
}

impl Extraction {
    /// The answer of a text, if it has one.
    #[must_use]
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Whole => Some(text.trim()),
            Self::Boxed => last_boxed(text),
            Self::Marker(mark) => after_marker(text, mark),
            Self::Tag(tag) => last_tagged(text, tag),
            Self::CodeBlock => last_code_block(text),
            Self::LastNumber => last_number(text),
            Self::Any => last_boxed(text)
                .or_else(|| after_marker(text, "####"))
                .or_else(|| last_tagged(text, "answer"))
                .or_else(|| after_phrase(text))
                .or_else(|| last_number(text))
                .or_else(|| Some(text.trim()).filter(|text| !text.is_empty())),
        }
    }
}

impl Truth {
    /// Scores each rollout by comparing its answer with the right one: `compare` gets the right answer first, and an
    /// error of it says that the right answer itself cannot be used. A completion without an answer is wrong.
    pub(super) fn judge(
        &self,
        answer: &AnswerFormat,
        rollouts: &[Rollout],
        compare: impl Fn(&str, &str) -> Result<bool, String>,
    ) -> Vec<Score> {
        let judge = |rollout: &Rollout| {
            let truth = self.of(rollout)?;
            answer.find(&rollout.completion).map_or_else(
                // What makes the right answer unusable must not depend on what the model said.
                || compare(&truth, "").map(|_| false),
                |found| compare(&truth, found),
            )
        };
        rollouts.iter().map(|rollout| judge(rollout).into()).collect()
    }

    /// The right answer of a row, or why there is none.
    fn of(&self, rollout: &Rollout) -> Result<String, String> {
        let text = rollout.text_column(&self.column)?;
        let found = self.extract.find(&text).map(str::to_owned);
        found.ok_or_else(|| format!("column `{}` holds no answer in the expected form", self.column))
    }
}

fn last_boxed(text: &str) -> Option<&str> {
    let mut end = text.len();
    while let Some(at) = text[..end].rfind("boxed") {
        end = at;
        let command = text[..at].ends_with('\\') || text[..at].ends_with("\\f");
        let inside = text[at + "boxed".len()..].trim_start();
        if !command {
            continue;
        }
        if let Some(group) = inside.strip_prefix('{') {
            if let Some(close) = closing_brace(group) {
                return Some(group[..close].trim());
            }
        } else if let Some(word) = inside.split_whitespace().next() {
            return Some(word.trim_end_matches(['$', '.', ',']));
        }
    }
    None
}

/// Where the brace closes that was opened right before `text`.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn after_marker<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    let line = text.rsplit_once(mark)?.1.lines().next().unwrap_or_default().trim();
    (!line.is_empty()).then_some(line)
}

fn last_tagged<'t>(text: &'t str, tag: &str) -> Option<&'t str> {
    let (before, _) = text.rsplit_once(&format!("</{tag}>"))?;
    Some(before.rsplit_once(&format!("<{tag}>"))?.1.trim())
}

fn last_code_block(text: &str) -> Option<&str> {
    let mut block = None;
    let mut opened: Option<usize> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let next = start + line.len();
        if line.trim_start().starts_with("```") {
            opened = match opened {
                Some(from) => {
                    block = Some(&text[from..start]);
                    None
                }
                None => Some(next),
            };
        }
        start = next;
    }
    block
}

fn after_phrase(text: &str) -> Option<&str> {
    static PHRASE: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?i)\banswer\s*(?:is|:|=)\s*:?\s*([^\n]+)").ok());
    let found = PHRASE.as_ref()?.captures_iter(text).last()?.get(1)?;
    // What follows the sentence is no part of it.
    let sentence = found.as_str().split(". ").next().unwrap_or_default();
    let answer = sentence.trim().trim_end_matches('.').trim_matches('*').trim().trim_end_matches('.');
    (!answer.is_empty()).then_some(answer)
}

fn last_number(text: &str) -> Option<&str> {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"[-−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?\s*%?",
        )
        .ok()
    });
    let found = NUMBER.as_ref()?.find_iter(text).last()?;
    let number = found.as_str().trim();
    // The hyphen of "3-4" or of "page-4" is no sign.
    let hyphen = number.starts_with('-') && text[..found.start()].ends_with(char::is_alphanumeric);
    Some(if hyphen { &number[1..] } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_found() {
        for (text, answer) in [
            (r"so \boxed{\frac{1}{2}}.", Some(r"\frac{1}{2}")),
            (r"\boxed{1} or rather \fbox{2}", Some("1")),
            (r"\boxed{1} or rather \fboxed{2}", Some("2")),
            (r"$\boxed 42$", Some("42")),
            (r"\boxed{1} and \boxed{2", Some("1")),
            (r"\boxed{\{1, 2\}}", Some(r"\{1, 2\}")),
            ("boxed{1}", None),
            ("", None),
        ] {
            assert_eq!(Extraction::Boxed.find(text), answer, "{text}");
        }
    }

    #[test]
    fn marks_tags_and_blocks_are_found() {
        let gsm8k = Extraction::Marker("####".into());
        assert_eq!(gsm8k.find("3 * 24 = 72\n#### 72\n"), Some("72"));
        assert_eq!(gsm8k.find("#### \n72"), None);
        assert_eq!(
            Extraction::Tag("answer".into()).find("<answer>a</answer><answer> b </answer>"),
            Some("b")
        );
        assert_eq!(Extraction::Tag("answer".into()).find("<answer>a"), None);
        let text = "```rust\na\n```\nand\n```\nb\nc\n```\n";
        assert_eq!(Extraction::CodeBlock.find(text), Some("b\nc\n"));
        assert_eq!(Extraction::CodeBlock.find("```\na"), None);
    }

    #[test]
    fn the_last_number_is_found() {
        for (text, answer) in [
            ("1 and 1,234.5 apples", Some("1,234.5")),
            ("12,345", Some("12,345")),
            ("0.5", Some("0.5")),
            ("1e-3", Some("1e-3")),
            ("about 50%.", Some("50%")),
            ("It is -3.", Some("-3")),
            ("pages 3-4", Some("4")),
            ("3/4 of it", Some("3/4")),
            ("none", None),
        ] {
            assert_eq!(Extraction::LastNumber.find(text), answer, "{text}");
        }
    }

    #[test]
    fn any_form_is_tried_in_order() {
        for (text, answer) in [
            (r"The answer is 3. \boxed{4}", Some("4")),
            ("The answer is **x + 1**.", Some("x + 1")),
            ("The answer is 3.5. I hope this helps!", Some("3.5")),
            ("It costs 12 dollars", Some("12")),
            ("Monday", Some("Monday")),
            (" ", None),
        ] {
            assert_eq!(Extraction::Any.find(text), answer, "{text}");
        }
    }

    #[test]
    fn reasoning_can_be_cut_away() {
        let format = AnswerFormat { after: Some("</think>".into()), extract: Extraction::Boxed };
        assert_eq!(format.find(r"\boxed{1}</think>\boxed{2}"), Some("2"));
        assert_eq!(format.find(r"\boxed{1}</think>"), None);
        assert_eq!(format.find(r"\boxed{1}"), None);
    }

    #[test]
    fn configurations_are_short() {
        let format: AnswerFormat = serde_json::from_str(r#"{"extract": {"marker": "Answer:"}}"#).unwrap();
        assert_eq!(format.extract, Extraction::Marker("Answer:".into()));
        assert!(serde_json::from_str::<Truth>(r#"{"colum": "a"}"#).is_err());
    }
}
