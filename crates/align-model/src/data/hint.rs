//! What to do about a row without the right columns.

use super::{RecordError, Row};

/// Names of columns, and those that other formats use for them.
const SYNONYMS: [(&str, &[&str]); 9] = [
    ("messages", &["conversations", "conversation", "message", "dialog", "dialogue", "chat", "turns"]),
    ("prompt", &["instruction", "question", "query", "input", "problem"]),
    ("completion", &["response", "output", "answer", "target", "solution", "chosen"]),
    ("text", &["content", "document", "body", "story", "sentence"]),
    ("chosen", &["preferred", "accepted", "better", "winner", "response_chosen", "chosen_response"]),
    ("rejected", &["dispreferred", "refused", "worse", "loser", "response_rejected", "rejected_response"]),
    ("label", &["labels", "desirable", "is_good", "good", "score"]),
    ("completions", &["steps", "solution_steps", "completion"]),
    ("labels", &["label", "ratings", "step_labels"]),
];

/// The column of a row that is `ours` under another name.
pub(super) fn synonym<'a>(row: &'a Row, ours: &str) -> Option<&'a str> {
    let miscased = row.names().find(|name| *name != ours && name.eq_ignore_ascii_case(ours));
    miscased.or_else(|| {
        let names = SYNONYMS.iter().find(|(name, _)| *name == ours).map_or(&[][..], |(_, names)| names);
        names.iter().find_map(|known| row.names().find(|name| name.eq_ignore_ascii_case(known)))
    })
}

/// The error that a row lacks some of the columns that a record needs.
pub(super) fn missing(row: &Row, needed: &[&str], expected: &'static str) -> RecordError {
    let steps: Vec<String> = needed
        .iter()
        .filter(|ours| !row.has(ours))
        .map(|ours| match synonym(row, ours).filter(|theirs| !needed.contains(theirs)) {
            Some(theirs) => format!("rename `{theirs}` to `{ours}`"),
            None => format!("`{ours}` is missing"),
        })
        .collect();
    let is_guess = steps.iter().any(|step| step.starts_with("rename")) || steps.len() < needed.len();
    RecordError::Columns {
        found: row.names().map(str::to_owned).collect(),
        expected,
        hint: is_guess.then(|| steps.join(", ")),
    }
}
