//! A repository at a revision: its addresses, and how it is called in messages.

use std::fmt;

use hf_hub::RepoType;

use super::{HubError, HubReference};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepositoryKind {
    /// A model, or an adapter for one.
    Model,
    /// A dataset.
    Dataset,
}

impl RepositoryKind {
    pub(super) fn repo_type(self) -> RepoType {
        match self {
            Self::Model => RepoType::Model,
            Self::Dataset => RepoType::Dataset,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }
}

/// A repository at a revision, and perhaps one of its files: what a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) kind: RepositoryKind,
    pub(super) repository: &'a str,
    pub(super) revision: &'a str,
    pub(super) file: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(kind: RepositoryKind, reference: &'a HubReference) -> Self {
        Self { kind, repository: reference.repository(), revision: reference.revision(), file: None }
    }

    pub(super) fn file(self, file: &'a str) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Where the Hub lists the repository's files.
    pub(super) fn listing_url(self, endpoint: &str) -> String {
        let (kind, revision) = (self.kind.name(), escaped(self.revision).replace('/', "%2F"));
        format!("{endpoint}/api/{kind}s/{}/revision/{revision}", self.repository)
    }

    /// Where a file of the repository lies, at this commit.
    pub(super) fn file_url(self, endpoint: &str, commit: &str, file: &str) -> String {
        format!("{}/resolve/{commit}/{}", self.page(endpoint), escaped(file))
    }

    /// The page that people read.
    fn page(self, endpoint: &str) -> String {
        match self.kind {
            RepositoryKind::Model => format!("{endpoint}/{}", self.repository),
            RepositoryKind::Dataset => format!("{endpoint}/datasets/{}", self.repository),
        }
    }

    /// What was not found, by the Hub's own error code where it gives one.
    pub(super) fn not_found(self, endpoint: String, code: &str) -> HubError {
        let page = self.page(&endpoint);
        let (what, advice) = match (code, self.file) {
            ("RevisionNotFound", _) => (
                Self { file: None, ..self }.to_string(),
                "check the branch, tag or commit behind the @".into(),
            ),
            (_, Some(_)) if code != "RepoNotFound" => {
                (self.to_string(), format!("{page}/tree/{} lists what there is", self.revision))
            }
            _ => {
                let advice = "check the name; a private one is shown to a token of its owner only (HF_TOKEN)";
                (format!("{} {}", self.kind.name(), self.repository), advice.into())
            }
        };
        HubError::NotFound { endpoint, what, advice }
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = self.file {
            write!(f, "{file} of ")?;
        }
        write!(f, "{} {}", self.kind.name(), self.repository)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// A path in an address, its slashes kept.
fn escaped(path: &str) -> String {
    use fmt::Write as _;
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped() {
        let reference: HubReference = "a/b@refs/pr/1".parse().unwrap();
        let model = Asked::new(RepositoryKind::Model, &reference);
        assert_eq!(model.listing_url("https://h"), "https://h/api/models/a/b/revision/refs%2Fpr%2F1");
        let dataset = Asked::new(RepositoryKind::Dataset, &reference);
        assert_eq!(
            dataset.file_url("https://h", "c0", "data/a b+é.csv"),
            "https://h/datasets/a/b/resolve/c0/data/a%20b%2B%C3%A9.csv"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let reference: HubReference = "a/b@v1".parse().unwrap();
        let asked = Asked::new(RepositoryKind::Model, &reference);
        let said = |asked: Asked<'_>, code| asked.not_found("https://h".into(), code).to_string();
        assert!(said(asked, "RepoNotFound").starts_with("https://h has no model a/b: check the name"));
        assert!(
            said(asked, "RevisionNotFound").starts_with("https://h has no model a/b@v1: check the branch")
        );
        let file = asked.file("x.gguf");
        assert!(said(file, "EntryNotFound").contains("x.gguf of model a/b@v1: https://h/a/b/tree/v1 lists"));
        assert!(said(asked, "").starts_with("https://h has no model a/b: "));
    }
}
