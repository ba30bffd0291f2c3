//! What does not change the meaning of a mathematical text.

use super::super::answer::closing_brace;

/// Several expressions in one answer.
#[derive(Debug, PartialEq)]
pub(super) struct List<'t> {
    /// The opening and the closing one; spaces where there are none.
    pub(super) brackets: (char, char),
    /// What stands between the commas.
    pub(super) entries: Vec<&'t str>,
}

/// The brackets of a list whose order does not count.
pub(super) const SET: (char, char) = ('{', '}');

/// Spellings that are one, from left to right.
const SPELLINGS: [(&str, &str); 38] = [
    ("\\left", ""),
    ("\\right", ""),
    ("\\displaystyle", ""),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\lvert", "|"),
    ("\\rvert", "|"),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("\\cdot", "*"),
    ("\\times", "*"),
    ("\\div", "/"),
    ("\\quad", " "),
    ("\\%", "%"),
    ("\\$", ""),
    ("\\,", ""),
    ("\\!", ""),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("~", " "),
    ("{,}", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\degree", ""),
    ("°", ""),
    ("**", "^"),
    ("×", "*"),
    ("·", "*"),
    ("÷", "/"),
    ("−", "-"),
    ("²", "^2"),
    ("³", "^3"),
    ("π", "\\pi "),
    ("√", "\\sqrt "),
    ("∞", "\\infty "),
    ("$", ""),
];

/// Commands around words and units.
const WORDS: [&str; 6] = ["\\text", "\\textbf", "\\textit", "\\mathrm", "\\mbox", "\\operatorname"];

/// The text in one spelling, without mark-up and units.
pub(super) fn clean(text: &str) -> String {
    let mut text = text.trim().to_string();
    for delimiters in [("\\(", "\\)"), ("\\[", "\\]")] {
        let inside = text.strip_prefix(delimiters.0).and_then(|rest| rest.strip_suffix(delimiters.1));
        text = inside.map(str::to_owned).unwrap_or(text);
    }
    for (from, to) in SPELLINGS {
        // `\leftarrow` and `\rightarrow` are commands of their own.
        text = if from.starts_with("\\l") || from.starts_with("\\r") {
            replace_command(&text, from, to)
        } else {
            text.replace(from, to)
        };
    }
    let text = without_units(&text);
    text.trim().trim_end_matches(['.', ',', ';']).trim().to_string()
}

/// Of `x = 5`, `f(x) = 5` or `x \in 5`, the 5.
pub(super) fn right_side(text: &str) -> &str {
    let Some((left, right)) = text.split_once('=').or_else(|| text.split_once("\\in ")) else { return text };
    let left = left.trim();
    let named = left.chars().next().is_some_and(char::is_alphabetic) || left.starts_with('\\');
    let short = left.chars().filter(|c| c.is_alphabetic()).count() <= 3;
    if named && short && !right.contains('=') { right.trim() } else { text }
}

/// The entries of a list, of a tuple, an interval or a set; `None` where there is no comma outside of brackets.
pub(super) fn split_list(text: &str) -> Option<List<'_>> {
    let (brackets, inside) = enclosed(text);
    let commas = top_level_commas(inside)?;
    if commas.is_empty() || super::parse_number(inside).is_some() {
        // `1,234` is one number, and `\{5\}` is 5 in a set.
        return (brackets == SET).then(|| List { brackets, entries: vec![inside.trim()] });
    }
    let mut entries = Vec::with_capacity(commas.len() + 1);
    let mut start = 0;
    for comma in commas {
        entries.push(inside[start..comma].trim());
        start = comma + 1;
    }
    entries.push(inside[start..].trim());
    Some(List { brackets, entries })
}

/// Words without their commands, spaces and the brackets around them.
pub(super) fn plain_text(text: &str) -> String {
    let mut text = text.to_string();
    for command in WORDS {
        text = text.replace(command, "");
    }
    let plain: String =
        text.chars().filter(|c| !['{', '}', '\\'].contains(c) && !c.is_whitespace()).collect();
    let inside = plain.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inside.filter(|inside| !inside.contains(['(', ')'])).unwrap_or(&plain).to_string()
}

/// Replaces a command that is not merely the beginning of a longer one.
fn replace_command(text: &str, command: &str, by: &str) -> String {
    let mut parts = text.split(command);
    let mut replaced = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let longer = part.starts_with(|c: char| c.is_ascii_alphabetic());
        replaced.push_str(if longer { command } else { by });
        replaced.push_str(part);
    }
    replaced
}

/// Leaves out words that follow something.
fn without_units(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((at, command)) = first_word_command(rest) {
        kept.push_str(&rest[..at]);
        let group = &rest[at + command.len() + 1..];
        let Some(close) = closing_brace(group) else { break };
        let is_unit = !kept.trim().is_empty();
        if !is_unit {
            kept.push_str(&rest[at..at + command.len() + close + 2]);
        }
        rest = &group[close + 1..];
    }
    kept + rest
}

fn first_word_command(text: &str) -> Option<(usize, &'static str)> {
    let found = WORDS.iter().filter_map(|command| {
        let at = text.find(&format!("{command}{{"))?;
        Some((at, *command))
    });
    found.min()
}

/// The brackets around all of a text, and what is inside.
fn enclosed(text: &str) -> ((char, char), &str) {
    if let Some(inside) = text.strip_prefix("\\{").and_then(|rest| rest.strip_suffix("\\}")) {
        return (SET, inside);
    }
    let open = text.chars().next().filter(|c| ['(', '['].contains(c));
    let close = text.chars().next_back().filter(|c| [')', ']'].contains(c));
    match (open, close) {
        (Some(open), Some(close)) if text.len() >= 2 => {
            let inside = &text[1..text.len() - 1];
            // `(a, b) + (c, d)` begins and ends with brackets that do not belong together.
            if top_level_commas(inside).is_some() { ((open, close), inside) } else { ((' ', ' '), text) }
        }
        _ => ((' ', ' '), text),
    }
}

/// Where commas stand outside of brackets; `None` if a bracket closes that was not opened, or stays open.
fn top_level_commas(text: &str) -> Option<Vec<usize>> {
    let mut depth = 0usize;
    let mut commas = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => commas.push(at),
            _ => {}
        }
    }
    (depth == 0).then_some(commas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_up_goes() {
        for (text, cleaned) in [
            (r"\left( \dfrac{1}{2} \right)", r"( \frac{1}{2} )"),
            (r"$\$12{,}000$.", "12000"),
            (r"5 \text{ m}", "5"),
            (r"\text{even}", r"\text{even}"),
            (r"\(x\)", "x"),
            (r"a \leftarrow b", r"a \leftarrow b"),
            ("90^\\circ", "90"),
        ] {
            assert_eq!(clean(text), cleaned, "{text}");
        }
    }

    #[test]
    fn lists_are_split() {
        let entries = |text| split_list(text).map(|list| list.entries.join(" and "));
        assert_eq!(entries("(1, f(2, 3))").unwrap(), "1 and f(2, 3)");
        assert_eq!(entries("1, 2").unwrap(), "1 and 2");
        assert_eq!(entries("1,234"), None);
        assert_eq!(entries("(x+1)(x-1)"), None);
        assert_eq!(split_list("[0, 1)").unwrap().brackets, ('[', ')'));
        assert_eq!(split_list(r"\{5\}").unwrap().brackets, SET);
    }

    #[test]
    fn names_before_an_equals_sign_go() {
        assert_eq!(right_side("x = 5"), "5");
        assert_eq!(right_side("f(x)=x"), "x");
        assert_eq!(right_side("2x = 5"), "2x = 5");
        assert_eq!(right_side("a = b = 5"), "a = b = 5");
    }
}
