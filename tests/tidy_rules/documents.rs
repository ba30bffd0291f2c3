//! What the documentation of a public item must hold: a loss its source, a tensor its shape.

use std::collections::BTreeSet;

use super::{
    scan::{item_end, leading_word, word_positions},
    source::Source,
};

/// Public `…_loss` functions without a `# Source`, or with one that the table of papers does not list.
pub(crate) fn uncited_losses(sources: &[&Source], papers: &str) -> Vec<String> {
    let (listed, names) = (citations(papers), listed_functions(papers));
    let mut found = Vec::new();
    for source in sources {
        for f in source.functions().into_iter().filter(|f| f.is_public && f.name.ends_with("_loss")) {
            let place = format!("{}:{}: {}", source.path, f.line, f.name);
            let cited = section(&f.doc, "Source").map(citations).unwrap_or_default();
            if cited.is_empty() {
                found.push(format!(
                    "{place}: `# Source` must give an arXiv id or a permalink into a repository"
                ));
            } else if !cited.iter().any(|c| listed.iter().any(|l| l.is_same(c))) {
                found.push(format!("{place}: its source is not in docs/papers.md"));
            }
            if !names.iter().any(|name| name == f.name) {
                found.push(format!("{place}: no row of docs/papers.md names it"));
            }
        }
    }
    found
}

/// Functions that the table of papers names and no crate has.
pub(crate) fn missing_functions(sources: &[&Source], papers: &str) -> Vec<String> {
    let functions =
        sources.iter().flat_map(|s| s.functions()).filter(|f| f.is_public).map(|f| f.name.to_string());
    let existing: BTreeSet<String> = functions.collect();
    let missing = listed_functions(papers).into_iter().filter(|name| !existing.contains(name));
    missing.map(|name| format!("docs/papers.md: there is no public function `{name}`")).collect()
}

/// Public functions, methods and fields with a tensor whose shape the documentation does not say.
pub(crate) fn undocumented_shapes(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for f in source.functions().into_iter().filter(|f| f.is_public && mentions_tensor(f.signature)) {
        if !f.doc.contains("# Shapes") && !shows_shape(&f.doc) {
            found.push(format!("{}:{}: {}: say the shape of every tensor", source.path, f.line, f.name));
        }
    }
    for (line, name) in tensor_fields(source) {
        if !shows_shape(&source.doc(line)) {
            found.push(format!("{}:{line}: field {name}: say its shape", source.path));
        }
    }
    found
}

/// Where a formula comes from.
#[derive(Debug, Clone, PartialEq)]
enum Citation {
    Arxiv(String),
    Permalink { repository: String, commit: String, path: String },
}

impl Citation {
    /// The same place; a commit may be abbreviated.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Permalink { repository, commit, path },
                Self::Permalink { repository: other_repository, commit: other_commit, path: other_path },
            ) => {
                let same_commit = commit.starts_with(other_commit) || other_commit.starts_with(commit);
                repository == other_repository && path == other_path && same_commit
            }
            _ => self == other,
        }
    }
}

/// Every arXiv id and every link to a file of a repository at a fixed commit.
fn citations(text: &str) -> Vec<Citation> {
    let arxiv = text.match_indices("arXiv:").filter_map(|(at, mark)| {
        let id: String =
            text[at + mark.len()..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let id = id.trim_end_matches('.');
        let (month, number) = id.split_once('.')?;
        (month.len() == 4 && (4..=5).contains(&number.len())).then(|| Citation::Arxiv(id.into()))
    });
    let links = text.match_indices("https://github.com/").filter_map(|(at, mark)| {
        let link = text[at + mark.len()..].split([')', '>', ' ', '\n', '#', '|']).next()?;
        let mut parts = link.splitn(5, '/');
        let (owner, repository, kind, commit) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_commit = commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit());
        let is_permalink = ["blob", "tree"].contains(&kind) && is_commit;
        is_permalink.then(|| Citation::Permalink {
            repository: format!("{owner}/{repository}"),
            commit: commit.into(),
            path: parts.next().unwrap_or_default().into(),
        })
    });
    arxiv.chain(links).collect()
}

/// The text under a heading of a doc comment, up to the next.
fn section<'a>(doc: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = doc.split_once(&format!("# {heading}\n"))?;
    Some(rest.split("\n# ").next().unwrap_or(rest))
}

/// Names in code marks in the second column of every table row, without their path.
fn listed_functions(papers: &str) -> Vec<String> {
    let columns = papers.lines().filter(|l| l.starts_with('|')).filter_map(|l| l.split('|').nth(2));
    let names = columns.flat_map(|column| column.split('`').skip(1).step_by(2));
    names.map(|name| name.rsplit("::").next().unwrap_or(name).to_string()).collect()
}

fn mentions_tensor(code: &str) -> bool {
    word_positions(code, "Tensor<").next().is_some()
}

/// Whether a doc comment shows a shape such as `[tokens, hidden]`; a link to an item is none.
fn shows_shape(doc: &str) -> bool {
    let is_dimension = |c: char| c.is_alphanumeric() || " _,.·×*/+-−…()=".contains(c);
    doc.lines().any(|line| {
        line.match_indices('[').any(|(at, _)| {
            let in_code_marks = line[..at].matches('`').count() % 2 == 1;
            let inside = line[at + 1..].split(']').next().unwrap_or_default();
            in_code_marks && !inside.is_empty() && inside.chars().all(is_dimension)
        })
    })
}

/// Line and name of the `pub` fields of public structs that hold a tensor.
fn tensor_fields(source: &Source) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for at in word_positions(&source.code, "struct").filter(|&at| source.is_pub(at)) {
        let (Some(open), end) = item_end(&source.code, at) else { continue };
        let mut start = open + 1;
        for line in source.code[open + 1..end].split_inclusive('\n') {
            if let Some(field) = line.trim().strip_prefix("pub ").filter(|field| mentions_tensor(field)) {
                found.push((source.line(start), leading_word(field)));
            }
            start += line.len();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPERS: &str = "| source | function | golden |\n| --- | --- | --- |\n\
        | [arXiv:2508.05629](https://arxiv.org/abs/2508.05629) | `align_model::sft::dft_loss` | `loss` |\n\
        | [TRL](https://github.com/huggingface/trl/blob/f2cd57710/trl/a.py) | `nll_loss` | `loss` |\n";

    fn losses(text: &str) -> Vec<String> {
        uncited_losses(&[&Source::new("a.rs", text)], PAPERS)
    }

    #[test]
    fn a_cited_loss_is_fine() {
        let arxiv = "/// L.\n///\n/// # Source\n/// Wu et al., [arXiv:2508.05629](https://x).\n///\n/// # Shapes\npub fn dft_loss() {}";
        assert_eq!(losses(arxiv), Vec::<String>::new());
        let link = "/// # Source\n/// <https://github.com/huggingface/trl/blob/f2cd5771/trl/a.py#L3-L9>\npub fn nll_loss() {}";
        assert_eq!(losses(link), Vec::<String>::new());
    }

    #[test]
    fn an_uncited_loss_is_found() {
        let elsewhere = "/// By arXiv:2508.05629.\n///\n/// # Shapes\n/// none\npub fn dft_loss() {}";
        assert_eq!(
            losses(elsewhere),
            ["a.rs:5: dft_loss: `# Source` must give an arXiv id or a permalink into a repository"]
        );
        assert_eq!(
            losses("/// # Source\n/// arXiv:1234.56789\npub fn nll_loss() {}"),
            ["a.rs:3: nll_loss: its source is not in docs/papers.md"]
        );
        assert_eq!(
            losses("/// # Source\n/// arXiv:2508.05629\npub fn own_loss() {}"),
            ["a.rs:3: own_loss: no row of docs/papers.md names it"]
        );
        let moving =
            "/// # Source\n/// <https://github.com/huggingface/trl/blob/main/trl/a.py>\npub fn nll_loss() {}";
        assert_eq!(losses(moving).len(), 1);
        assert_eq!(losses("fn inner_loss() {}\npub(crate) fn own_loss() {}").len(), 0);
    }

    #[test]
    fn a_row_without_a_function_is_found() {
        let source = Source::new("a.rs", "pub fn dft_loss() {}\nfn nll_loss() {}");
        assert_eq!(
            missing_functions(&[&source], PAPERS),
            ["docs/papers.md: there is no public function `nll_loss`"]
        );
    }

    #[test]
    fn a_tensor_without_a_shape_is_found() {
        let functions = "/// See [`Model`] and [this](x).\npub fn f(x: &Tensor<2, Int>) {}\n/// `[tokens, hidden]`\npub fn g() -> Tensor<2> {}\n/// # Shapes\n/// below\npub fn h(x: Tensor<1>) {}\nfn i(x: Tensor<1>) {}";
        assert_eq!(
            undocumented_shapes(&Source::new("a.rs", functions)),
            ["a.rs:2: f: say the shape of every tensor"]
        );
        let methods = "pub trait T {\n    /// Runs.\n    fn run(&self, x: Vec<Tensor<2>>);\n}";
        assert_eq!(
            undocumented_shapes(&Source::new("a.rs", methods)),
            ["a.rs:3: run: say the shape of every tensor"]
        );
    }

    #[test]
    fn a_field_without_a_shape_is_found() {
        let text = "pub struct A {\n    /// The weight.\n    pub weight: Param<Tensor<2>>,\n    /// `[out]`\n    pub bias: Tensor<1>,\n    hidden: Tensor<1>,\n}";
        assert_eq!(undocumented_shapes(&Source::new("a.rs", text)), ["a.rs:3: field weight: say its shape"]);
    }
}
