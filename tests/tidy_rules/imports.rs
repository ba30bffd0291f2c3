//! The layers inside align-model: a module imports from its own layer and from those below.

use std::collections::BTreeMap;

use super::{
    scan::{leading_word, word_positions},
    source::Source,
};

/// From the lowest layer to the highest.
const LAYERS: [&[&str]; 7] = [
    &["number", "masked", "device", "hub"],
    &["tokenizer", "chat", "data"],
    &["decoder", "causal_lm", "pretrained", "adapter"],
    &["logprob", "generate", "memory"],
    &["train", "checkpoint", "record"],
    &["sft", "preference"],
    &["inspect"],
];

/// Imports that point upwards, and modules that are in no layer.
pub(crate) fn upward_imports(sources: &[&Source]) -> Vec<String> {
    let reexports = sources
        .iter()
        .find(|s| s.path.ends_with("/src/lib.rs"))
        .map_or_else(BTreeMap::new, |s| reexports(&s.code));
    let mut found = Vec::new();
    for source in sources {
        let module = module(&source.path);
        if module == "lib" {
            continue;
        }
        let Some(own) = layer(module) else {
            found.push(format!("{}: module `{module}` is in no layer: add it to LAYERS", source.path));
            continue;
        };
        for (at, name) in crate_paths(source) {
            let target = reexports.get(&name).unwrap_or(&name);
            if layer(target).is_some_and(|layer| layer > own) {
                found.push(format!(
                    "{}: `{module}` must not import `{target}`, which lies above it",
                    source.place(at)
                ));
            }
        }
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// `chat` of `…/src/chat.rs` and of `…/src/chat/template.rs`.
fn module(path: &str) -> &str {
    let inside = path.split_once("/src/").map_or(path, |(_, inside)| inside);
    leading_word(inside)
}

/// First names behind `crate::`, and behind `super::` where that is the crate's root.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let is_top = source.path.split_once("/src/").is_some_and(|(_, inside)| !inside.contains('/'));
    let roots: &[&str] = if is_top { &["crate::", "super::"] } else { &["crate::"] };
    let mut found = Vec::new();
    for root in roots {
        for at in word_positions(&source.code, root) {
            found.extend(first_names(&source.code[at + root.len()..]).into_iter().map(|name| (at, name)));
        }
    }
    found
}

/// First names of a path or of a `{…}` group of paths.
fn first_names(code: &str) -> Vec<String> {
    match group(code) {
        Some(inside) => split_group(inside).into_iter().map(|path| leading_word(path).to_string()).collect(),
        None => vec![leading_word(code).to_string()],
    }
}

/// What is between the braces of a use group at the beginning of `code`.
fn group(code: &str) -> Option<&str> {
    let code = code.trim_start();
    code.starts_with('{').then(|| &code[1..super::scan::matching_brace(code, 0)])
}

/// The paths of a use group, at its commas but not at those of inner groups.
fn split_group(inside: &str) -> Vec<&str> {
    let mut depth = 0usize;
    let parts = inside.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|path| !path.is_empty()).collect()
}

/// Names that the crate's root takes from its modules, with the module: `Generator` from `pub use generate::Generator`.
fn reexports(code: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for at in word_positions(code, "pub use") {
        let path = code[at + "pub use".len()..].split(';').next().unwrap_or_default().trim();
        let path = path.strip_prefix("crate::").unwrap_or(path);
        let exported =
            path.split(['{', '}', ',']).filter_map(|p| p.rsplit("::").next()?.split_whitespace().last());
        names.extend(exported.map(|name| (name.to_string(), leading_word(path).to_string())));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> =
            files.iter().map(|(p, t)| Source::new(&format!("crates/align-model/src/{p}"), t)).collect();
        upward_imports(&sources.iter().collect::<Vec<_>>())
    }

    #[test]
    fn downward_imports_are_fine() {
        let text = "use crate::{number::Positive, chat::{Message, Role}};\nuse super::data::Record;";
        assert_eq!(
            check(&[("sft.rs", text), ("generate/sampling.rs", "use super::stop::Stop;")]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn upward_imports_are_found() {
        assert_eq!(
            check(&[("chat/template.rs", "\nuse crate::{number::{A, B}, train::fit};")]),
            [
                "crates/align-model/src/chat/template.rs:2: `chat` must not import `train`, which lies above it"
            ]
        );
        assert_eq!(check(&[("data.rs", "fn f() { super::generate::greedy() }")]).len(), 1);
        assert_eq!(check(&[("data.rs", "#[cfg(test)]\nmod tests { use crate::sft::X; }")]).len(), 0);
    }

    #[test]
    fn reexports_hide_no_module() {
        let root =
            ("lib.rs", "pub use train::{Step, optimizer::AdamW as Optimizer};\npub use number::Positive;");
        assert_eq!(check(&[root, ("decoder.rs", "use crate::Optimizer;")]).len(), 1);
        assert_eq!(check(&[root, ("decoder.rs", "use crate::Step;")]).len(), 1);
        assert_eq!(check(&[root, ("decoder.rs", "use crate::Positive;")]).len(), 0);
    }

    #[test]
    fn every_module_has_a_layer() {
        assert_eq!(check(&[("stray.rs", "")]).len(), 1);
    }
}
