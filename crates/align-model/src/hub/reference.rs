//! Names of things on the Hub, and how to tell them from paths.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::HubError;

/// `owner/name`, with `@revision` for a branch, tag or commit and `:part` for a part of the repository:
/// `owner/name@v1.0:model.Q4_K_M.gguf`, `owner/name:test`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubReference {
    repository: String,
    revision: Option<String>,
    part: Option<String>,
}

impl HubReference {
    /// `owner/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The branch, tag or commit; `main` where none is named.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// What stands behind the colon: a file of the repository, or a dataset's split.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }
}

impl FromStr for HubReference {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (repository, revision, part) = split(text);
        let wrong = |reason: &str| HubError::Name { name: text.into(), reason: reason.into() };
        if !is_repository(repository) {
            return Err(wrong("expected owner/name, of letters, digits, `-`, `_` and `.`"));
        }
        if revision.is_some_and(|revision| !is_revision(revision)) {
            return Err(wrong("what stands behind the @ is not a branch, tag or commit"));
        }
        if part.is_some_and(|part| !is_inside(part)) {
            return Err(wrong("what stands behind the colon is not a file or part of a repository"));
        }
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self { repository: repository.into(), revision: owned(revision), part: owned(part) })
    }
}

impl fmt::Display for HubReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        self.part.as_ref().map_or(Ok(()), |part| write!(f, ":{part}"))
    }
}

/// What a user means by the name of a model or dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file or directory of this machine, which need not exist.
    Local(PathBuf),
    /// Something on the Hub.
    Hub(HubReference),
}

impl Location {
    /// Tells a path from a name on the Hub.
    ///
    /// What exists is a path. So is what begins with `/`, `./`, `../` or `~`, what does not have the form `owner/name`,
    /// and what ends as files of models or data do (`data/train.jsonl`): those are never looked for on the Hub.
    ///
    /// # Errors
    /// If it is a name on the Hub with a revision or part that cannot be.
    ///
    /// # Example
    /// ```
    /// use align_model::hub::Location;
    ///
    /// assert!(matches!(Location::of("HuggingFaceTB/SmolLM2-135M@main")?, Location::Hub(_)));
    /// assert!(matches!(Location::of("./HuggingFaceTB/SmolLM2-135M")?, Location::Local(_)));
    /// assert!(matches!(Location::of("runs/first/model")?, Location::Local(_)));
    /// # Ok::<(), align_model::hub::HubError>(())
    /// ```
    pub fn of(name: &str) -> Result<Self, HubError> {
        let (repository, _, part) = split(name);
        let looks_like_file = part.is_none() && has_file_extension(name);
        if Path::new(name).exists() || !is_repository(repository) || looks_like_file {
            return Ok(Self::Local(name.into()));
        }
        name.parse().map(Self::Hub)
    }
}

/// The repository, the revision and the part. A revision holds no colon, a part may hold anything.
fn split(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (head, part) = text.split_once(':').map_or((text, None), |(head, part)| (head, Some(part)));
    let (repository, revision) = head.split_once('@').map_or((head, None), |(name, rev)| (name, Some(rev)));
    (repository, revision, part)
}

/// As the Hub's own rule: what it refuses to create does not exist there.
fn is_repository(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 96
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !name.starts_with(['-', '.'])
            && !name.ends_with(['-', '.'])
            && !name.contains("--")
            && !name.contains("..")
    };
    text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// As git's rule, near enough: the revision names a file of the cache.
fn is_revision(text: &str) -> bool {
    is_inside(text) && !text.chars().any(|c| c.is_whitespace() || "~^:?*[".contains(c))
}

/// Whether a path with `/` stays inside the directory that it is relative to, on every system.
pub(super) fn is_inside(path: &str) -> bool {
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']) && !part.contains(char::is_control)
    };
    path.split('/').all(is_plain)
}

/// Whether a name ends as files of models and data do.
fn has_file_extension(name: &str) -> bool {
    const FILES: [&str; 10] =
        ["gguf", "safetensors", "json", "jsonl", "csv", "tsv", "txt", "parquet", "gz", "zst"];
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| FILES.iter().any(|file| extension.eq_ignore_ascii_case(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_three_parts() {
        for (text, repository, revision, part) in [
            ("a/b", "a/b", "main", None),
            ("a/b@v1.0", "a/b", "v1.0", None),
            ("a/b@refs/pr/3", "a/b", "refs/pr/3", None),
            ("a/b:q4@x/c.gguf", "a/b", "main", Some("q4@x/c.gguf")),
            ("HuggingFaceTB/SmolLM2-135M@main:test", "HuggingFaceTB/SmolLM2-135M", "main", Some("test")),
        ] {
            let reference: HubReference = text.parse().unwrap();
            assert_eq!(
                (reference.repository(), reference.revision(), reference.part()),
                (repository, revision, part)
            );
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_leads_out_of_a_cache_is_no_reference() {
        let names = ["a", "a/b/c", "../b", "a/..", "a/b@../../x", "a/b@", "a/b:", "a/b:/etc", "a/b:x/../y"];
        for text in names.iter().chain(&["a/b@x y", "a/b:x\\y", "a--b/c", "-a/b", "a/b.", "a/\u{e9}"]) {
            assert!(matches!(text.parse::<HubReference>(), Err(HubError::Name { .. })), "{text}");
        }
    }

    #[test]
    fn a_path_is_not_looked_for_on_the_hub() {
        for path in
            ["./a/b", "../a/b", "/a/b", "~/b", "a", "a/b/c", "a\\b", "C:/b", "data/x.jsonl", "m/x.GGUF"]
        {
            assert_eq!(Location::of(path).unwrap(), Location::Local(path.into()), "{path}");
        }
        assert_eq!(Location::of("src/hub").unwrap(), Location::Local("src/hub".into()), "it exists");
    }

    #[test]
    fn a_name_is() {
        for name in ["HuggingFaceTB/SmolLM2-135M-Instruct", "a/b@v1", "a/b:x.gguf", "trl-lib/Capybara:test"] {
            assert!(matches!(Location::of(name), Ok(Location::Hub(_))), "{name}");
        }
        assert!(Location::of("a/b@").is_err());
    }
}
