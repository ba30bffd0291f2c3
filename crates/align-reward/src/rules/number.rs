//! Answers that must be the right number.

use align_model::number::NonNegative;
use serde::{Deserialize, Serialize};

use super::{AnswerFormat, Extraction, Truth};
use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// 1 if the answer is the right number, else 0.
///
/// Numbers are read by [`parse_number`]; of `6 * 7 = 42` what follows the last equals sign counts, and of a text that
/// holds one number and words, such as `$42 a week`, that number. A right answer that is no number leaves the row
/// unscored; an answer that is no number is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumericEquality {
    /// Where the right answer is.
    pub truth: Truth,
    /// How the answer is found in the completion.
    pub answer: AnswerFormat,
    /// How far off an answer may be.
    pub absolute_tolerance: NonNegative,
    /// How far off an answer may be, as a part of the right one's size; whichever allows more counts.
    pub relative_tolerance: NonNegative,
}

impl Default for NumericEquality {
    fn default() -> Self {
        Self {
            truth: Truth::default(),
            answer: AnswerFormat { after: None, extract: Extraction::Any },
            absolute_tolerance: NonNegative::new(0.0),
            relative_tolerance: NonNegative::new(1e-6),
        }
    }
}

impl RewardFn for NumericEquality {
    fn name(&self) -> &'static str {
        "numeric"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let compare = |truth: &str, answer: &str| {
            let right =
                the_number(truth).ok_or_else(|| format!("the right answer `{truth}` is no number"))?;
            let allowed = self.absolute_tolerance.get().max(self.relative_tolerance.get() * right.abs());
            Ok(the_number(answer).is_some_and(|given| (given - right).abs() <= allowed))
        };
        Ok(self.truth.judge(&self.answer, rollouts, compare))
    }
}

/// The number that an answer gives.
fn the_number(text: &str) -> Option<f64> {
    let text = text.rsplit('=').next().unwrap_or_default();
    parse_number(text).or_else(|| {
        let last = Extraction::LastNumber.find(text)?;
        let before = &text[..text.rfind(last)?];
        // Of several numbers none is the answer.
        Extraction::LastNumber.find(before).is_none().then(|| parse_number(last))?
    })
}

/// The number that a text is: `1,234.5`, `-3/4`, `1 1/2`, `50%` (which is 0.5), `$12`, `2e-3`, `\frac{3}{4}`.
///
/// ```
/// use align_reward::rules::parse_number;
///
/// assert_eq!(parse_number(" 1,234 "), Some(1234.0));
/// assert_eq!(parse_number("50%"), Some(0.5));
/// assert_eq!(parse_number("1,23"), None);
/// ```
#[must_use]
pub fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim().trim_matches('$').trim_end_matches('.').replace('−', "-");
    let text = text.replace("\\%", "%").replace("\\$", "").replace("\\,", "").replace("{,}", ",");
    let text = text.trim();
    let (text, scale) = match text.strip_suffix('%') {
        Some(text) => (text.trim_end(), 0.01),
        None => (text, 1.0),
    };
    let (text, sign) = match text.strip_prefix('-') {
        Some(text) => (text.trim_start(), -1.0),
        None => (text.strip_prefix('+').unwrap_or(text), 1.0),
    };
    let text = text.trim_start_matches(['$', '€', '£']);
    let value = latex_fraction(text).or_else(|| mixed(text))?;
    let value = sign * scale * value;
    value.is_finite().then_some(value)
}

/// `\frac{3}{4}`, `\frac34`, with a whole number before it or not.
fn latex_fraction(text: &str) -> Option<f64> {
    let (whole, fraction) = ["\\dfrac", "\\tfrac", "\\frac"].iter().find_map(|name| text.split_once(name))?;
    let whole = if whole.trim().is_empty() { 0.0 } else { unsigned(whole.trim())? };
    let (above, below) = match fraction.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?.split_once("}{")?,
        None if fraction.len() == 2 && fraction.is_ascii() => fraction.split_at(1),
        None => return None,
    };
    Some(whole + ratio(above, below)?)
}

/// A whole number and a fraction, or one of the two.
fn mixed(text: &str) -> Option<f64> {
    let Some((above, below)) = text.split_once('/') else { return unsigned(text) };
    match above.trim().rsplit_once(' ') {
        Some((whole, above)) => Some(unsigned(whole.trim())? + ratio(above, below)?),
        None => ratio(above, below),
    }
}

fn ratio(above: &str, below: &str) -> Option<f64> {
    let below = unsigned(below.trim())?;
    let above = above.trim();
    let (sign, above) = above.strip_prefix('-').map_or((1.0, above), |above| (-1.0, above));
    (below != 0.0).then_some(sign * unsigned(above)? / below)
}

/// Digits with commas only where they separate thousands.
fn unsigned(text: &str) -> Option<f64> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_digits = |c: char| c.is_ascii_digit() || ".,eE+-".contains(c);
    if !starts_well || !text.chars().all(is_digits) {
        return None;
    }
    let whole = text.split(['.', 'e', 'E']).next().unwrap_or_default();
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let mut grouped = groups.peekable();
    if grouped.peek().is_some() && (first.is_empty() || first.len() > 3) {
        return None;
    }
    if grouped.any(|group| group.len() != 3) || text[whole.len()..].contains(',') {
        return None;
    }
    text.replace(',', "").parse().ok()
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the numbers are read, not computed")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        for (text, number) in [
            ("42", 42.0),
            ("-1,234,567.25", -1_234_567.25),
            ("3/4", 0.75),
            ("-3/4", -0.75),
            ("1 1/2", 1.5),
            ("50%", 0.5),
            ("50\\%", 0.5),
            ("$ 12.50", 12.5),
            ("$12.", 12.0),
            ("2e-3", 2e-3),
            (".5", 0.5),
            ("−7", -7.0),
            (r"\frac{3}{4}", 0.75),
            (r"-\frac34", -0.75),
            (r"2\frac{1}{2}", 2.5),
            (r"\frac{-1}{4}", -0.25),
            ("+3", 3.0),
            ("1{,}000", 1000.0),
        ] {
            assert_eq!(parse_number(text), Some(number), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in [
            "",
            "x",
            "1,23",
            "1,2345",
            "12,34,567",
            "1/0",
            "inf",
            "nan",
            "1.2.3",
            "3 4",
            ",123",
            "1.5,000",
            "--1",
        ] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }

    #[test]
    fn answers_are_compared_as_numbers() {
        let mut reward = NumericEquality::default();
        let mut score = |truth: &str, completion: &str| {
            reward.score(&[Rollout::new("p", completion).with_column("answer", truth)]).unwrap().remove(0)
        };
        for (truth, completion, right) in [
            ("1234", "It is 1,234.", true),
            ("0.5", r"\boxed{\frac{1}{2}}", true),
            ("3", "3.1", false),
            ("3", "three", false),
            ("42", "The answer is $42 a week.", true),
            ("42", "The answer is 6 * 7 = 42", true),
            ("42", "The answer is 42 or 43", false),
            ("0.42", "The answer is 42% of it", true),
        ] {
            assert_eq!(score(truth, completion), Score::from(right), "{truth} {completion}");
        }
        assert_eq!(score("many", "3"), Score::unscored("the right answer `many` is no number"));
        assert!(score("many", "").is_unscored());
    }

    #[test]
    fn tolerances_are_used() {
        let mut reward = NumericEquality {
            absolute_tolerance: NonNegative::new(0.01),
            relative_tolerance: NonNegative::new(0.0),
            ..NumericEquality::default()
        };
        let rollouts =
            ["3.14", "3.15", "3.16"].map(|text| Rollout::new("p", text).with_column("answer", "3.1416"));
        let values: Vec<_> = reward.score(&rollouts).unwrap().iter().filter_map(Score::value).collect();
        assert_eq!(values, [1.0, 1.0, 0.0]);
    }
}
