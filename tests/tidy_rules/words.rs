//! Words that have no place in the tree.

use super::{scan::word_positions, source::Source};

/// What a library must not call, and what it does instead. Clippy knows types and finds `expect` in every form.
const CALLS: [(&str, &str); 15] = [
    (".unwrap()", "return an error"),
    (".expect(\"", "return an error"),
    ("panic!", "return an error, or `assert!` what only a programmer can get wrong"),
    ("todo!", "finish it"),
    ("unimplemented!", "finish it"),
    ("println!", "return it"),
    ("eprintln!", "return it"),
    ("print!", "return it"),
    ("eprint!", "return it"),
    ("dbg!", "remove it"),
    ("Device::default()", "take a device as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("Instant::now", "let the caller measure"),
    ("env::var", "take it as an argument"),
    ("env::var_os", "take it as an argument"),
];

/// Calls that panic, print, or read the world behind the caller's back.
pub(crate) fn forbidden_calls(source: &Source) -> Vec<String> {
    let hits = CALLS
        .iter()
        .flat_map(|&(call, instead)| word_positions(&source.code, call).map(move |at| (at, call, instead)));
    hits.map(|(at, call, instead)| format!("{}: `{call}` in a library: {instead}", source.place(at)))
        .collect()
}

/// Marks of unfinished work, in code and in comments.
pub(crate) fn unfinished(path: &str, text: &str) -> Vec<String> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for mark in marks.into_iter().filter(|mark| word_positions(line, mark).next().is_some()) {
            found.push(format!("{path}:{}: {mark}: do it, or leave it out", index + 1));
        }
    }
    found
}

/// A file whose name says nothing of what is inside, or `mod.rs` in a crate.
pub(crate) fn vague_name(path: &str) -> Option<String> {
    let in_crate = path.starts_with("crates/");
    let mut parts = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    if let Some(part) = parts.find(|part| ["utils", "util", "common", "helpers", "misc"].contains(part)) {
        return Some(format!("{path}: `{part}` says nothing: name it after what it is about"));
    }
    (in_crate && path.ends_with("/mod.rs"))
        .then(|| format!("{path}: write `name.rs` beside `name/`, not `name/mod.rs`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_code_only() {
        let text = "//! x.unwrap()\nfn f() { x.unwrap_or(1); \"panic!\"; y\n.expect(\"it\"); eprintln!(); }\n#[cfg(test)]\nmod tests { fn g() { x.unwrap() } }";
        let found = forbidden_calls(&Source::new("a.rs", text));
        assert_eq!(
            found,
            [
                "a.rs:3: `.expect(\"` in a library: return an error",
                "a.rs:3: `eprintln!` in a library: return it"
            ]
        );
    }

    #[test]
    fn a_default_device_is_found() {
        let source = Source::new("a.rs", "let d = burn::tensor::Device::default();");
        assert_eq!(forbidden_calls(&source).len(), 1);
        assert_eq!(forbidden_calls(&Source::new("a.rs", "let d = MyDevice::default();")).len(), 0);
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = format!("fine\n// {}: later", concat!("TO", "DO"));
        assert_eq!(unfinished("a.rs", &text).len(), 1);
        assert_eq!(unfinished("a.rs", "TODOS are many"), Vec::<String>::new());
    }

    #[test]
    fn vague_names_are_found() {
        assert!(vague_name("crates/align-model/src/utils.rs").is_some());
        assert!(vague_name("crates/align-model/src/common/sum.rs").is_some());
        assert!(vague_name("crates/align-model/src/chat/mod.rs").is_some());
        assert!(vague_name("tests/golden_runner/mod.rs").is_none());
        assert!(vague_name("crates/align-model/src/masked.rs").is_none());
    }
}
