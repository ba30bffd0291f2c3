//! From LaTeX and plain notation to the fully parenthesised infix that exmex reads.
//!
//! exmex binds a sign and a function name tighter than a power, so that its `-x^2` is `(-x)^2`, knows no implicit
//! multiplication, and takes `2^3^2` from the left. Parentheses around everything leave nothing to precedence.

/// Longer texts are no answers.
const MAX_LENGTH: usize = 2000;
/// Brackets, functions, signs and powers within each other.
const MAX_DEPTH: usize = 48;

/// Functions of one argument, under the names that exmex has for them.
const FUNCTIONS: [(&str, &str); 21] = [
    ("arcsin", "asin"),
    ("arccos", "acos"),
    ("arctan", "atan"),
    ("sinh", "sinh"),
    ("cosh", "cosh"),
    ("tanh", "tanh"),
    ("asin", "asin"),
    ("acos", "acos"),
    ("atan", "atan"),
    ("sqrt", "sqrt"),
    ("cbrt", "cbrt"),
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("exp", "exp"),
    ("abs", "abs"),
    ("log10", "log10"),
    ("log2", "log2"),
    ("log", "log10"),
    ("lg", "log10"),
    ("ln", "ln"),
];

/// Names that stand for one variable each.
const GREEK: [&str; 22] = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "varphi",
    "psi",
    "omega",
];

/// The expression for exmex; `None` where the text is none, or none that can be computed.
pub(super) fn to_infix(text: &str) -> Option<String> {
    if text.len() > MAX_LENGTH || is_word(text) {
        return None;
    }
    let mut parser = Parser { rest: text, depth: 0, bars: 0 };
    let expression = parser.sum()?;
    parser.skip_space();
    parser.rest.is_empty().then_some(expression)
}

/// Whether there are letters and nothing else, and they are not a name that is known: `dog` is not `god`.
fn is_word(text: &str) -> bool {
    let known = GREEK.contains(&text) || text == "pi";
    text.chars().count() > 2 && text.chars().all(char::is_alphabetic) && !known
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
    /// Whether a bar closes the innermost brackets rather than opening new ones.
    bars: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Option<String> {
        let mut sum = self.product()?;
        loop {
            let operator = if self.take("+") {
                '+'
            } else if self.take("-") {
                '-'
            } else {
                break;
            };
            let next = self.product()?;
            sum = format!("({sum}{operator}{next})");
        }
        Some(sum)
    }

    fn product(&mut self) -> Option<String> {
        let mut product = self.signed()?;
        loop {
            if self.take("*") {
                product = format!("({product}*{})", self.signed()?);
            } else if self.take("/") {
                product = format!("({product}/{})", self.signed()?);
            } else if self.atom_follows() {
                product = format!("({product}*{})", self.power()?);
            } else {
                return Some(product);
            }
        }
    }

    fn signed(&mut self) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let signed = if self.take("-") {
            format!("(0-{})", self.signed()?)
        } else if self.take("+") {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Some(signed)
    }

    fn power(&mut self) -> Option<String> {
        let mut base = self.atom()?;
        if self.take("!") {
            base = literal_of(factorial(whole(&base)?)?);
        }
        if self.take("%") {
            base = format!("({base}/100)");
        }
        match self.exponent()? {
            Some(exponent) => Some(format!("({base}^{exponent})")),
            None => Some(base),
        }
    }

    /// What follows `^`, if that does: the outer `None` is a failure.
    #[allow(clippy::option_option, reason = "no exponent is not the same as a broken one")]
    fn exponent(&mut self) -> Option<Option<String>> {
        if self.take("^") { Some(Some(self.signed()?)) } else { Some(None) }
    }

    fn atom(&mut self) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        let first = self.rest.chars().next()?;
        let atom = match first {
            '(' => self.group("(", ")"),
            '[' => self.group("[", "]"),
            '{' => self.group("{", "}"),
            '|' if self.bars == 0 => self.absolute(),
            '\\' => self.command(),
            _ if first.is_ascii_digit() || first == '.' => self.number(),
            _ if first.is_alphabetic() => self.word(),
            _ => None,
        };
        self.depth -= 1;
        atom
    }

    fn atom_follows(&mut self) -> bool {
        self.skip_space();
        match self.rest.chars().next() {
            Some('|') => self.bars == 0,
            Some('\\') => !self.rest.starts_with("\\}"),
            Some(first) => ['(', '[', '{', '.'].contains(&first) || first.is_alphanumeric(),
            None => false,
        }
    }

    fn group(&mut self, open: &str, close: &str) -> Option<String> {
        if !self.take(open) {
            return None;
        }
        let bars = std::mem::take(&mut self.bars);
        let inside = self.sum()?;
        self.bars = bars;
        self.take(close).then_some(inside)
    }

    fn absolute(&mut self) -> Option<String> {
        self.take("|");
        self.bars += 1;
        let inside = self.sum()?;
        self.bars -= 1;
        self.take("|").then(|| format!("abs({inside})"))
    }

    fn number(&mut self) -> Option<String> {
        let is_part = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let literal = self.rest[..end].trim_end_matches(',');
        let value = super::parse_number(literal)?;
        self.rest = &self.rest[literal.len()..];
        // A whole number right before a fraction of whole numbers is a mixed number, not a product.
        if value.fract() == 0.0 && self.rest.trim_start().starts_with("\\frac") {
            let fraction = self.rest.trim_start();
            let end = fraction.find(|c: char| !c.is_ascii_digit() && !"\\frac{}".contains(c));
            let fraction = &fraction[..end.unwrap_or(fraction.len())];
            if let Some(part) = super::parse_number(fraction) {
                self.rest = &self.rest.trim_start()[fraction.len()..];
                return Some(literal_of(value + part));
            }
        }
        Some(literal_of(value))
    }

    fn command(&mut self) -> Option<String> {
        let name = &self.rest[1..];
        let end = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
        let name = &name[..end];
        self.rest = &self.rest[1 + end..];
        match name {
            "frac" => {
                let (above, below) = (self.argument()?, self.argument()?);
                Some(format!("({above}/{below})"))
            }
            "binom" => {
                let (n, k) = (whole(&self.argument()?)?, whole(&self.argument()?)?);
                let chosen = factorial(n)? / (factorial(k)? * factorial(n.checked_sub(k)?)?);
                Some(literal_of(chosen.round()))
            }
            "pi" => Some("PI".into()),
            "sqrt" => self.root(),
            "mathbf" | "mathit" | "boldsymbol" => self.group("{", "}"),
            _ if GREEK.contains(&name) => Some(self.variable(name)),
            _ => {
                let function = FUNCTIONS.iter().find(|(known, _)| *known == name)?.1;
                self.application(function)
            }
        }
    }

    /// Letters: functions and names that are known, otherwise one variable a letter.
    fn word(&mut self) -> Option<String> {
        let end = self.rest.find(|c: char| !c.is_alphabetic()).unwrap_or(self.rest.len());
        let letters = &self.rest[..end];
        if let Some((name, function)) = FUNCTIONS.iter().find(|(name, _)| self.rest.starts_with(name)) {
            self.rest = &self.rest[name.len()..];
            return if *name == "sqrt" { self.root() } else { self.application(function) };
        }
        if letters == "pi" {
            self.rest = &self.rest[end..];
            return Some("PI".into());
        }
        if GREEK.contains(&letters) {
            self.rest = &self.rest[end..];
            return Some(self.variable(letters));
        }
        // A run of letters that holds no function is a word of a language.
        let run = FUNCTIONS.iter().filter_map(|(name, _)| letters.find(name)).min().unwrap_or(letters.len());
        if letters[..run].chars().count() > 3 {
            return None;
        }
        let letter = letters.chars().next()?;
        self.rest = &self.rest[letter.len_utf8()..];
        if letter == 'e' && !self.rest.starts_with('_') {
            return Some("E".into());
        }
        Some(self.variable(&letter.to_string()))
    }

    /// A variable under a name that is none of exmex's, with its index.
    fn variable(&mut self, name: &str) -> String {
        let mut variable = format!("v_{name}");
        if let Some(rest) = self.rest.strip_prefix('_') {
            let group = rest.strip_prefix('{').and_then(|group| group.split_once('}'));
            let (index, after) =
                group.unwrap_or_else(|| rest.split_at(rest.chars().next().map_or(0, char::len_utf8)));
            self.rest = after;
            variable.push('_');
            variable.extend(index.chars().filter(char::is_ascii_alphanumeric));
        }
        variable
    }

    fn root(&mut self) -> Option<String> {
        self.skip_space();
        let degree = if self.rest.starts_with('[') { Some(self.group("[", "]")?) } else { None };
        let radicand = self.argument()?;
        Some(match degree {
            // `cbrt` is defined for negative numbers, where the power is not.
            Some(degree) if degree == "3" => format!("cbrt({radicand})"),
            Some(degree) => format!("({radicand}^(1/{degree}))"),
            None => format!("sqrt({radicand})"),
        })
    }

    /// A function and its argument, with an exponent or a base between them or not.
    fn application(&mut self, function: &str) -> Option<String> {
        let mut base = None;
        if self.take("_") {
            base = Some(self.argument()?);
        }
        let exponent = self.exponent()?;
        if exponent.as_deref() == Some("(0-1)") {
            return None;
        }
        self.skip_space();
        let argument =
            if self.rest.starts_with(['(', '{', '[']) { self.atom()? } else { self.bare_argument()? };
        let value = match base {
            Some(base) => format!("(ln({argument})/ln({base}))"),
            None => format!("{function}({argument})"),
        };
        Some(match exponent {
            Some(exponent) => format!("({value}^{exponent})"),
            None => value,
        })
    }

    /// The argument of a function without brackets: `2x` of `sin 2x + 1`, `x` of `sin x cos x`.
    fn bare_argument(&mut self) -> Option<String> {
        let mut argument = self.power()?;
        while self.atom_follows() && !self.function_follows() && !self.rest.starts_with(['(', '[', '{']) {
            argument = format!("({argument}*{})", self.power()?);
        }
        Some(argument)
    }

    fn function_follows(&self) -> bool {
        let name = self.rest.trim_start_matches('\\');
        FUNCTIONS.iter().any(|(known, _)| name.starts_with(known))
    }

    /// A group in braces or brackets, a digit, or another single atom.
    fn argument(&mut self) -> Option<String> {
        self.skip_space();
        if let Some(digit) = self.rest.chars().next().filter(char::is_ascii_digit) {
            self.rest = &self.rest[1..];
            return Some(digit.to_string());
        }
        self.atom()
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

/// A literal that is a whole number, as small as a factorial can take.
fn whole(literal: &str) -> Option<u32> {
    literal.parse().ok().filter(|number| *number <= 170)
}

fn factorial(number: u32) -> Option<f64> {
    Some((1..=number).map(f64::from).product::<f64>()).filter(|value| value.is_finite())
}

/// A number as exmex reads it: digits, without an exponent.
fn literal_of(value: f64) -> String {
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_parenthesised() {
        for (text, infix) in [
            ("1+2*3", "(1+(2*3))"),
            ("-x^2", "(0-(v_x^2))"),
            ("2^3^2", "(2^(3^2))"),
            ("2x(x+1)", "((2*v_x)*(v_x+1))"),
            (r"\frac12x", "((1/2)*v_x)"),
            (r"\frac{a}{b+1}", "(v_a/(v_b+1))"),
            (r"\sin^2 x", "(sin(v_x)^2)"),
            (r"\sin 2x + 1", "(sin((2*v_x))+1)"),
            (r"\sqrt[n]{x}", "(v_x^(1/v_n))"),
            ("x_{12}y", "(v_x_12*v_y)"),
            ("|x-1||y|", "(abs((v_x-1))*abs(v_y))"),
            ("2e", "(2*E)"),
            ("1,234", "1234"),
            (r"2\frac{1}{2}", "2.5"),
        ] {
            assert_eq!(to_infix(text).as_deref(), Some(infix), "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "",
            "()",
            "1+",
            "x^",
            "(1",
            "1)",
            r"\foo",
            r"\frac{1}",
            "x!",
            "5!!",
            "Monday",
            "a<b",
            "|x",
            "1 = 1",
        ] {
            assert_eq!(to_infix(text), None, "{text}");
        }
    }
}
