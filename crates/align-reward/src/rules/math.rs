//! Answers that must be the right expression, however it is written.

mod clean;
mod infix;

use std::collections::{BTreeMap, BTreeSet};

use align_model::number::Positive;
use exmex::{Express, FlatEx};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{AnswerFormat, Extraction, Truth, parse_number};
use crate::{
    function::{RewardError, RewardFn},
    rollout::Rollout,
    score::Score,
};

/// 1 if the answer equals the right one as a mathematical expression, else 0.
///
/// Both may be plain (`(x+1)^2`) or LaTeX (`\frac{1}{2}`, `\sqrt[3]{x}`, `2\pi r`); `x = 5` is 5; lists, tuples and
/// intervals are compared entry by entry, `\{…\}` in any order. Expressions with variables are equal if their values
/// are at points drawn from a fixed seed, so `(x+1)^2` and `x^2+2x+1` are; this cannot err in favour of a wrong
/// answer but by a coincidence of eight numbers. What is no expression, such as `\text{Monday}`, is compared as text,
/// upper and lower case alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathEquality {
    /// Where the right answer is.
    pub truth: Truth,
    /// How the answer is found in the completion.
    pub answer: AnswerFormat,
    /// How far apart two values may be that count as equal, as a part of their size, or of 1 if that is more.
    pub tolerance: Positive,
    /// Seeds the points at which expressions with variables are compared.
    pub seed: u64,
}

impl Default for MathEquality {
    fn default() -> Self {
        Self {
            truth: Truth::default(),
            answer: AnswerFormat { after: None, extract: Extraction::Any },
            tolerance: Positive::new(1e-6),
            seed: 0,
        }
    }
}

impl MathEquality {
    /// Whether two answers are the same.
    #[must_use]
    pub fn equal(&self, right: &str, given: &str) -> bool {
        let (right, given) = (clean::clean(right), clean::clean(given));
        let (right, given) = (clean::right_side(&right), clean::right_side(&given));
        if right == given {
            return true;
        }
        match (clean::split_list(right), clean::split_list(given)) {
            (Some(right), Some(given)) => self.equal_lists(&right, &given),
            (None, None) => self.equal_single(right, given),
            _ => false,
        }
    }

    fn equal_lists(&self, right: &clean::List<'_>, given: &clean::List<'_>) -> bool {
        if right.brackets != given.brackets || right.entries.len() != given.entries.len() {
            return false;
        }
        if right.brackets != clean::SET {
            return right.entries.iter().zip(&given.entries).all(|(a, b)| self.equal_single(a, b));
        }
        let mut left: Vec<&str> = given.entries.clone();
        right.entries.iter().all(|entry| {
            let found = left.iter().position(|other| self.equal_single(entry, other));
            found.map(|at| left.swap_remove(at)).is_some()
        })
    }

    fn equal_single(&self, right: &str, given: &str) -> bool {
        if let (Some(right), Some(given)) = (parse_number(right), parse_number(given)) {
            return self.close(right, given);
        }
        if let (Some(right), Some(given)) = (Expression::parse(right), Expression::parse(given)) {
            return self.equal_expressions(&right, &given);
        }
        let text = |text: &str| clean::plain_text(text).to_lowercase();
        !right.is_empty() && text(right) == text(given)
    }

    fn equal_expressions(&self, right: &Expression, given: &Expression) -> bool {
        let names: BTreeSet<&str> = right.variables().chain(given.variables()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let wanted = if names.is_empty() { 1 } else { POINTS };
        let mut compared = 0;
        for attempt in 0..ATTEMPTS {
            // Roots and logarithms are defined for positive numbers, so half of the points are positive throughout.
            let low = if attempt % 2 == 0 { 0.1 } else { -3.0 };
            let point: BTreeMap<&str, f64> =
                names.iter().map(|name| (*name, rng.random_range(low..3.0))).collect();
            let (Some(right), Some(given)) = (right.value(&point), given.value(&point)) else { continue };
            if !self.close(right, given) {
                return false;
            }
            compared += 1;
            if compared == wanted {
                return true;
            }
        }
        false
    }

    fn close(&self, right: f64, given: f64) -> bool {
        (right - given).abs() <= self.tolerance.get() * right.abs().max(given.abs()).max(1.0)
    }
}

impl RewardFn for MathEquality {
    fn name(&self) -> &'static str {
        "math"
    }

    fn score(&mut self, rollouts: &[Rollout]) -> Result<Vec<Score>, RewardError> {
        let compare = |truth: &str, answer: &str| {
            if clean::clean(truth).is_empty() {
                return Err("the right answer is empty".into());
            }
            Ok(self.equal(truth, answer))
        };
        Ok(self.truth.judge(&self.answer, rollouts, compare))
    }
}

/// Points at which two expressions must agree.
const POINTS: usize = 8;
/// Points that are tried; expressions may be undefined at many of them.
const ATTEMPTS: usize = 64;

/// A parsed expression.
struct Expression {
    parsed: FlatEx<f64>,
}

impl Expression {
    fn parse(text: &str) -> Option<Self> {
        let parsed = exmex::parse::<f64>(&infix::to_infix(text)?).ok()?;
        Some(Self { parsed })
    }

    fn variables(&self) -> impl Iterator<Item = &str> {
        self.parsed.var_names().iter().map(String::as_str)
    }

    /// The value at a point that gives all variables, if there is one.
    fn value(&self, point: &BTreeMap<&str, f64>) -> Option<f64> {
        let values: Vec<f64> = self.variables().filter_map(|name| point.get(name).copied()).collect();
        self.parsed.eval(&values).ok().filter(|value| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn equal(right: &str, given: &str) -> bool {
        MathEquality::default().equal(right, given)
    }

    #[test]
    fn equal_expressions_are_equal() {
        for (right, given) in [
            (r"\frac{1}{3}", r"\frac{1}{3}"),
            (r"\frac{1}{2}", "0.5"),
            (r"\dfrac{1}{2}", "1/2"),
            (r"\frac12", "50%"),
            ("(x+1)^2", "x^2 + 2x + 1"),
            (r"(x+1)^{2}", r"x^{2}+2\cdot x+1"),
            (r"2\pi r", "2*pi*r"),
            (r"\sqrt{8}", r"2\sqrt{2}"),
            (r"\sqrt[3]{27}", "3"),
            (r"\sin^2 x + \cos^2 x", "1"),
            (r"\sin(2x)", r"2\sin x\cos x"),
            ("-x^2", r"-\left(x\right)^2"),
            ("2^{-1}", "1/2"),
            ("2^3^2", "512"),
            ("x = 5", "5"),
            ("y=2x+1", "1+2x"),
            (r"\text{Monday}", "monday"),
            ("1,234", "1234"),
            (r"1\,000{,}000", "1000000"),
            (r"90^\circ", "90"),
            (r"12\text{ cm}", "12"),
            (r"1\frac{1}{2}", "3/2"),
            (r"(1, \frac{1}{2})", "(1, 0.5)"),
            (r"\{1, 2, x\}", r"\{x, 1, 2\}"),
            (r"[0, \pi)", r"[0,\pi)"),
            (r"|x|", r"\sqrt{x^2}"),
            (r"\log_2 8", "3"),
            (r"\ln(e^3)", "3"),
            (r"e^{2\ln x}", "x^2"),
            (r"x_1 + x_2", "x_2+x_1"),
            (r"\alpha\beta", r"\beta \alpha"),
            ("a-b-c", "a-(b+c)"),
            ("a/b/c", "a/(bc)"),
            ("a/b*c", "ac/b"),
            ("$x$", "x"),
            ("x²", "x*x"),
            ("3 × 4", "12"),
            ("2**3", "8"),
            (r"\text{(B)}", "B"),
            (r"x \in [-2, 7]", "[-2,7]"),
            (r"(-\infty, 2)\cup(3, \infty)", r"(-\infty,2) \cup (3,\infty)"),
            (r"3 \pm \sqrt{2}", r"3\pm\sqrt{2}"),
            ("5!", "120"),
            (r"\binom{5}{2}", "10"),
            (r"5 \times 10^{6}", "5000000"),
            (r"\frac{9 \sqrt{3}}{4}", r"\frac{9}{4}\sqrt3"),
            (r"137 \frac{1}{2}", "137.5"),
            (r"6\pi\text{ square units}", r"6\pi"),
            (r"3-2i", "-2i+3"),
            (r"\$18.90", "18.9"),
            ("3, 5, 7", "3,5,7"),
        ] {
            assert!(equal(right, given), "{right} and {given}: {:?}", infix::to_infix(given));
            assert!(equal(given, right), "{given} and {right}");
        }
    }

    #[test]
    fn different_expressions_are_not() {
        for (right, given) in [
            (r"\frac{1}{3}", r"\frac{1}{2}"),
            ("(x+1)^2", "x^2+1"),
            ("-x^2", "(-x)^2"),
            ("x", "y"),
            ("x", "|x|"),
            ("5", "x"),
            ("5", ""),
            ("5", "five"),
            ("(1, 2)", "(2, 1)"),
            ("(1, 2)", "[1, 2]"),
            (r"\{1, 2\}", r"\{1, 1\}"),
            ("(1, 2)", "(1, 2, 3)"),
            ("dog", "god"),
            ("1/0", "2/0"),
            ("5", "5)"),
            ("5", "\\frac{5"),
            ("5", "x!"),
            ("B", r"\text{(C)}"),
            ("Monday", "Mon day is not"),
        ] {
            assert!(!equal(right, given), "{right} and {given}");
        }
    }

    #[test]
    fn deep_and_long_texts_are_refused_soon() {
        let deep = "(".repeat(100_000) + "1" + &")".repeat(100_000);
        assert!(!equal("1", &deep));
        assert!(!equal("1", &"-".repeat(100_000)));
        assert!(!equal("1", &"{\\frac".repeat(10_000)));
        assert!(!equal("1", &"x^".repeat(500)));
    }

    /// The examples of TRL's documentation.
    #[test]
    fn trls_examples_have_trls_rewards() {
        let scores = |reward: &mut MathEquality, completions: &[&str]| -> Vec<Option<f64>> {
            let rollout = |text: &&str| Rollout::new("p", *text).with_column("solution", r"\frac{1}{3}");
            let rollouts: Vec<Rollout> = completions.iter().map(rollout).collect();
            reward.score(&rollouts).unwrap().iter().map(Score::value).collect()
        };
        let truth = Truth { column: "solution".into(), ..Truth::default() };
        let mut accuracy = MathEquality { truth, ..MathEquality::default() };
        let boxed = [r"My answer is \boxed{\frac{1}{3}}", r"My answer is \boxed{\frac{1}{2}}"];
        assert_eq!(scores(&mut accuracy, &boxed), [Some(1.0), Some(0.0)]);
        accuracy.answer.after = Some("</think>".into());
        let reasoned = [
            r"<think> Reasoning content </think> The final answer is \boxed{\frac{1}{3}}",
            r"<think> Reasoning content </think> The final answer is \boxed{\frac{1}{2}}",
            r"<think> Reasoning content with partial answers \boxed{\frac{1}{3}} but no final answer",
        ];
        assert_eq!(scores(&mut accuracy, &reasoned), [Some(1.0), Some(0.0), Some(0.0)]);
    }

    #[test]
    fn a_right_answer_that_is_empty_leaves_the_row_unscored() {
        let mut reward = MathEquality::default();
        let scores = reward.score(&[Rollout::new("p", "1").with_column("answer", " ")]).unwrap();
        assert_eq!(scores, [Score::unscored("the right answer is empty")]);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_equals_itself(text in r"[-+*/^(){}\[\]|,.=0-9xysqrtfacine\\ $%!_]{0,40}") {
            let reward = MathEquality::default();
            prop_assert!(clean::clean(&text).is_empty() || reward.equal(&text, &text));
            let _ = reward.equal("x+1", &text);
        }

        #[test]
        fn no_text_is_too_odd(text in prop_oneof![r"\PC{0,30}", r"(boxed|\\|\{|−|½|²|answer is|=|\\in |\\text\{|1,2){0,12}"]) {
            let mut reward = MathEquality::default();
            let rollout = Rollout::new("p", text.as_str()).with_column("answer", text.as_str());
            let _ = reward.score(std::slice::from_ref(&rollout)).unwrap();
            let _ = super::super::NumericEquality::default().score(&[rollout]).unwrap();
        }

        #[test]
        fn rearranged_sums_are_equal(a in -9i32..9, b in -9i32..9, c in 1i32..9) {
            let left = format!("({a})x^2+({b})x-{c}/7");
            let right = format!(r"x\left({b}+{a}\cdot x\right)-\frac{{{c}}}{{7}}");
            prop_assert!(equal(&left, &right), "{} {}", left, right);
            let off = format!("{left}+\\frac{{1}}{{1000}}");
            prop_assert!(!equal(&left, &off));
        }
    }
}
