//! A Rust file and the functions in it.

use super::scan::{blank_comments_and_literals, item_end, leading_word, matching_brace, word_positions};

/// A Rust file.
pub(crate) struct Source {
    /// Relative to the repository's root.
    pub(crate) path: String,
    /// As it was written.
    pub(crate) text: String,
    /// The same without comments, literals and everything under `#[cfg(test)]`; as long, line by line.
    pub(crate) code: String,
    /// Lines that are neither blank, comment nor under `#[cfg(test)]`.
    pub(crate) code_lines: usize,
    /// Where the modules lie that this file declares under `#[cfg(test)]`: paths without `.rs`.
    pub(crate) test_modules: Vec<String>,
}

/// A function or method outside `#[cfg(test)]`.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
    /// `pub fn`, or a method of a `pub trait`.
    pub(crate) is_public: bool,
    /// Marked `#[test]`.
    pub(crate) is_test: bool,
    /// From `fn` to the body.
    pub(crate) signature: &'a str,
    /// Its doc comment, without the slashes.
    pub(crate) doc: String,
    /// Lines of code between the braces.
    pub(crate) body_lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut code = blank_comments_and_literals(text);
        let mut test_modules = Vec::new();
        while let Some((start, attribute_end)) = test_attribute(&code) {
            let (body, end) = item_end(&code, start);
            let module =
                code[attribute_end..end].trim().strip_suffix(';').and_then(|item| item.rsplit_once("mod "));
            if let Some((_, name)) = module.filter(|_| body.is_none()) {
                test_modules.push(format!("{}/{name}", module_directory(path)));
            }
            blank(&mut code, start, end);
        }
        let code_lines = count_code(&code);
        Self { path: path.into(), text: text.into(), code, code_lines, test_modules }
    }

    /// The same file, declared under `#[cfg(test)]` elsewhere: it has a size and no code.
    pub(crate) fn into_test(mut self) -> Self {
        let length = self.code.len();
        blank(&mut self.code, 0, length);
        self
    }

    /// Whether the file belongs to one of the modules.
    pub(crate) fn is_in(&self, modules: &[String]) -> bool {
        let inside = |rest: &str| rest == ".rs" || rest.starts_with('/');
        modules.iter().any(|module| self.path.strip_prefix(module.as_str()).is_some_and(inside))
    }

    /// `path:line` of a byte position.
    pub(crate) fn place(&self, at: usize) -> String {
        format!("{}:{}", self.path, self.line(at))
    }

    /// Doc comment of the item whose first line is `line`.
    pub(crate) fn doc(&self, line: usize) -> String {
        let docs = self.above(line).into_iter().filter_map(|l| l.strip_prefix("///"));
        docs.map(|l| l.strip_prefix(' ').unwrap_or(l)).collect::<Vec<_>>().join("\n")
    }

    /// The line of a byte position, counted from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// Whether the item whose keyword is at `at` is `pub` to everyone.
    pub(crate) fn is_pub(&self, at: usize) -> bool {
        let start = self.code[..at].rfind('\n').map_or(0, |n| n + 1);
        self.code[start..at].split_whitespace().any(|word| word == "pub")
    }

    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        let traits = self.public_traits();
        let named = word_positions(&self.code, "fn").filter_map(|at| {
            let name = leading_word(self.code[at + 2..].trim_start());
            (!name.is_empty()).then_some((at, name))
        });
        named.map(|(at, name)| self.function(at, name, &traits)).collect()
    }

    fn function<'a>(&'a self, at: usize, name: &'a str, traits: &[(usize, usize)]) -> Function<'a> {
        let (open, end) = item_end(&self.code, at);
        let line = self.line(at);
        let body = open.map_or("", |open| &self.code[open + 1..end - 1]);
        let in_trait =
            traits.iter().any(|&(open, close)| (open..close).contains(&at) && self.depth(open, at) == 1);
        Function {
            name,
            line,
            is_public: in_trait || self.is_pub(at),
            is_test: self.above(line).contains(&"#[test]"),
            signature: &self.code[at..open.unwrap_or(end)],
            doc: self.doc(line),
            body_lines: count_code(body),
        }
    }

    /// Bodies of the traits that are `pub`.
    fn public_traits(&self) -> Vec<(usize, usize)> {
        let keywords = word_positions(&self.code, "trait").filter(|&at| self.is_pub(at));
        keywords
            .filter_map(|at| item_end(&self.code, at).0)
            .map(|open| (open, matching_brace(&self.code, open)))
            .collect()
    }

    /// How many braces that open at or behind `from` are still open at `to`.
    fn depth(&self, from: usize, to: usize) -> usize {
        let between = &self.code[from..to];
        between.matches('{').count() - between.matches('}').count()
    }

    /// Doc comments and attributes right above a line, from top to bottom, trimmed.
    fn above(&self, line: usize) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().take(line - 1).map(str::trim).collect();
        let mut first = lines.len();
        while first > 0 {
            let previous = lines[first - 1];
            if previous.starts_with("//") || previous.starts_with("#[") {
                first -= 1;
            } else if let Some(start) = attribute_start(&lines[..first]) {
                first = start;
            } else {
                break;
            }
        }
        lines[first..].to_vec()
    }
}

/// Where an attribute of several lines begins that ends on the last of `lines`.
fn attribute_start(lines: &[&str]) -> Option<usize> {
    lines.last().filter(|l| l.ends_with(")]"))?;
    let start = lines.iter().rposition(|l| l.starts_with("#["))?;
    lines[start..].iter().all(|l| !l.is_empty() && !l.ends_with(';')).then_some(start)
}

/// Start and end of the first `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn test_attribute(code: &str) -> Option<(usize, usize)> {
    let starts = ["#[cfg(test)]", "#[cfg(all(test,"].into_iter().filter_map(|mark| code.find(mark));
    let start = starts.min()?;
    Some((start, start + code[start..].find(']')? + 1))
}

/// Where the files of a file's modules lie: `src/chat` for `src/chat.rs`, `src` for `src/lib.rs`.
fn module_directory(path: &str) -> &str {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((directory, "lib" | "main" | "mod")) => directory,
        _ => stem,
    }
}

fn count_code(code: &str) -> usize {
    code.lines().filter(|l| !l.trim().is_empty()).count()
}

fn blank(code: &mut String, start: usize, end: usize) {
    let spaces: String = code[start..end].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
    code.replace_range(start..end, &spaces);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
/// A seam.
pub trait Model {
    /// Says [one].
    #[must_use]
    fn forward(&self) -> Tensor<2>;
    /// Says.
    fn name(&self) -> String {
        fn inner() {}
        // nothing
        "{".into()
    }
}

pub(crate) fn hidden(x: fn(usize) -> usize) {}

#[cfg(test)]
mod tests {
    pub fn helper() {}
}
"#;

    #[test]
    fn functions_are_found_with_their_docs() {
        let source = Source::new("a.rs", TEXT);
        let seen: Vec<_> =
            source.functions().iter().map(|f| (f.name, f.line, f.is_public, f.body_lines)).collect();
        assert_eq!(
            seen,
            [("forward", 6, true, 0), ("name", 8, true, 2), ("inner", 9, false, 0), ("hidden", 15, false, 0)]
        );
        assert_eq!(source.functions()[0].doc, "Says [one].");
        assert_eq!(source.functions()[0].signature, "fn forward(&self) -> Tensor<2>;");
    }

    #[test]
    fn tests_are_not_code() {
        assert_eq!(Source::new("a.rs", TEXT).code_lines, 9);
        let some_features = Source::new(
            "a.rs",
            "fn f() {}\n#[cfg(all(test, feature = \"flex\"))]\nmod tests {\n    fn g() {}\n}\n",
        );
        assert_eq!(some_features.code_lines, 1);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_not_code() {
        let parent =
            Source::new("src/chat.rs", "mod template;\n#[cfg(test)]\n#[allow(x)]\npub(crate) mod fixture;\n");
        assert_eq!(parent.test_modules, ["src/chat/fixture"]);
        let file = |path| Source::new(path, "fn f() {}");
        assert!(file("src/chat/fixture.rs").is_in(&parent.test_modules));
        assert!(file("src/chat/fixture/deep.rs").is_in(&parent.test_modules));
        assert!(!file("src/chat/fixtures.rs").is_in(&parent.test_modules));
        assert!(file("src/chat/fixture.rs").into_test().functions().is_empty());
        assert_eq!(Source::new("src/lib.rs", "#[cfg(test)] mod fixture;").test_modules, ["src/fixture"]);
    }

    #[test]
    fn attributes_may_span_lines() {
        let source = Source::new(
            "a.rs",
            "/// Said.\n#[cfg_attr(\n    test,\n    allow(x)\n)]\n#[test]\npub fn f() {}",
        );
        let functions = source.functions();
        assert_eq!(functions[0].doc, "Said.");
        assert!(functions[0].is_test);
    }
}
