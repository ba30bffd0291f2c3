//! The rules, and the tree of files that they read.

pub(crate) mod documents;
pub(crate) mod imports;
pub(crate) mod manifests;
pub(crate) mod scan;
pub(crate) mod size;
pub(crate) mod source;
pub(crate) mod words;

use std::{ffi::OsStr, fs, path::Path};

use manifests::Manifest;
use source::Source;

/// Where files of the repository lie that the rules read.
const PLACES: [&str; 7] = ["crates", "src", "tests", "examples", "benches", "docs", "scripts"];

/// The repository as the rules see it. Paths are relative to the root and use `/`.
pub(crate) struct Tree {
    /// Every Rust file.
    pub(crate) rust: Vec<Source>,
    /// The root package's manifest and those of `crates/*`.
    pub(crate) manifests: Vec<Manifest>,
    /// `docs/papers.md`.
    pub(crate) papers: String,
    /// Path and text of every file that a person writes.
    pub(crate) texts: Vec<(String, String)>,
}

impl Tree {
    /// Reads the repository; cargo starts an integration test in its package's root.
    pub(crate) fn read() -> Self {
        let root = Path::new(".");
        let mut paths = vec!["Cargo.toml".to_string()];
        for place in PLACES {
            collect(&root.join(place), place, &mut paths);
        }
        paths.sort();
        let texts: Vec<_> = paths.iter().map(|path| (path.clone(), read(path))).collect();
        let is_manifest = |path: &str| {
            path == "Cargo.toml" || (path.starts_with("crates/") && path.ends_with("/Cargo.toml"))
        };
        Self {
            rust: sources(&texts),
            manifests: texts
                .iter()
                .filter(|(p, _)| is_manifest(p))
                .map(|(p, t)| Manifest::parse(p, t))
                .collect(),
            papers: read("docs/papers.md"),
            texts,
        }
    }

    /// Sources of all crates, the command line included.
    pub(crate) fn in_crates(&self) -> impl Iterator<Item = &Source> {
        self.rust.iter().filter(|s| s.path.starts_with("crates/") && s.path.contains("/src/"))
    }

    /// Sources that others link: the crates without the command line, and the facade.
    pub(crate) fn in_libraries(&self) -> impl Iterator<Item = &Source> {
        let facade = self.rust.iter().filter(|s| s.path.starts_with("src/"));
        self.in_crates().filter(|s| !s.path.starts_with("crates/align-cli/")).chain(facade)
    }
}

/// The Rust files among `texts`, with those that only tests use marked as such.
fn sources(texts: &[(String, String)]) -> Vec<Source> {
    let rust = texts.iter().filter(|(path, _)| extension(path) == "rs");
    let all: Vec<_> = rust.map(|(path, text)| Source::new(path, text)).collect();
    let of_tests: Vec<_> = all.iter().flat_map(|source| source.test_modules.clone()).collect();
    all.into_iter().map(|source| if source.is_in(&of_tests) { source.into_test() } else { source }).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(OsStr::to_str).unwrap_or_default()
}

/// Adds every text file under `directory` to `paths`.
fn collect(directory: &Path, name: &str, paths: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let file_name = entry.file_name().into_string().unwrap();
        let path = format!("{name}/{file_name}");
        if entry.file_type().unwrap().is_dir() {
            if !file_name.starts_with('.') && file_name != "target" {
                collect(&entry.path(), &path, paths);
            }
        } else if ["rs", "toml", "md", "py", "sh"].contains(&extension(&file_name)) {
            paths.push(path);
        }
    }
}
