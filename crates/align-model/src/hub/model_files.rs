//! Which files of a repository make up a model.

use std::path::Path;

use super::HubError;

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What is read of a model's directory besides its weights.
const COMPANIONS: [&str; 7] = [
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];
const TEMPLATES: &str = "additional_chat_templates/";

/// How a repository stores its weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights<'a> {
    /// `model.safetensors`.
    Single(&'static str),
    /// The index of several files.
    Sharded(&'static str),
    /// A file that is the whole model.
    Gguf(&'a str),
}

/// Finds the weights among a repository's files. `part` is the name of a file, or what is special in that of one of
/// several GGUF files, such as `Q4_K_M`.
pub(super) fn weights<'a>(
    repository: &str,
    files: &'a [String],
    part: Option<&str>,
) -> Result<Weights<'a>, HubError> {
    if let Some(file) = part.and_then(|part| files.iter().find(|file| *file == part)) {
        return Ok(Weights::Gguf(file));
    }
    let mut models: Vec<&str> =
        files.iter().map(String::as_str).filter(|file| has_extension(file, "gguf")).collect();
    if let Some(part) = part {
        let everything = models.clone();
        models.retain(|file| file.to_lowercase().contains(&part.to_lowercase()));
        return match models[..] {
            [file] => Ok(Weights::Gguf(file)),
            [] => Err(choice(repository, format!("there is no file `{part}`"), &everything)),
            _ => Err(choice(repository, format!("several files are called like `{part}`"), &models)),
        };
    }
    let has = |name: &str| files.iter().any(|file| file == name);
    match models[..] {
        _ if has(INDEX) => Ok(Weights::Sharded(INDEX)),
        _ if has(WEIGHTS) => Ok(Weights::Single(WEIGHTS)),
        [file] => Ok(Weights::Gguf(file)),
        [] => Err(HubError::NoWeights { repository: repository.into() }),
        _ => Err(choice(repository, "there are several GGUF files".into(), &models)),
    }
}

/// The files that are read besides the weights.
pub(super) fn companions(files: &[String]) -> impl Iterator<Item = &String> {
    files.iter().filter(|file| {
        let is_template = file.starts_with(TEMPLATES) && has_extension(file, "jinja");
        COMPANIONS.contains(&file.as_str()) || is_template
    })
}

/// The files that an index lists, each once.
pub(super) fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    let bytes = std::fs::read(index).map_err(HubError::io("read", index))?;
    let wrong = |reason: String| HubError::Answer { url: index.display().to_string(), reason };
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| wrong("no object `weight_map`".into()))?;
    let mut shards: Vec<String> =
        map.values().filter_map(serde_json::Value::as_str).map(str::to_owned).collect();
    shards.sort_unstable();
    shards.dedup();
    match shards.iter().find(|shard| !super::reference::is_inside(shard)) {
        Some(shard) => Err(wrong(format!("{shard} is not the name of a file in the repository"))),
        None => Ok(shards),
    }
}

fn choice(repository: &str, problem: String, choices: &[&str]) -> HubError {
    let choices = choices.iter().map(|&file| file.to_owned()).collect();
    HubError::Choice { repository: repository.into(), problem, choices }
}

fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_index_comes_before_the_single_file_and_that_before_gguf() {
        let all = files(&["a.gguf", "pytorch_model.bin", WEIGHTS, INDEX]);
        assert_eq!(weights("o/n", &all, None).unwrap(), Weights::Sharded(INDEX));
        assert_eq!(weights("o/n", &all[..3], None).unwrap(), Weights::Single(WEIGHTS));
        assert_eq!(weights("o/n", &all[..2], None).unwrap(), Weights::Gguf("a.gguf"));
        assert_eq!(weights("o/n", &all, Some("a.gguf")).unwrap(), Weights::Gguf("a.gguf"));
        assert!(matches!(weights("o/n", &all[1..2], None), Err(HubError::NoWeights { .. })));
    }

    #[test]
    fn one_of_several_gguf_files_is_named() {
        let all = files(&["m-Q4_0.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "README.md"]);
        assert_eq!(weights("o/n", &all, Some("q4_k_m")).unwrap(), Weights::Gguf("m-Q4_K_M.gguf"));
        for (part, said) in [
            (None, "o/n: there are several GGUF files: name one as o/n:NAME, of m-Q4_0.gguf, m-Q4_K_M.gguf"),
            (
                Some("Q4"),
                "o/n: several files are called like `Q4`: name one as o/n:NAME, of m-Q4_0.gguf, m-Q4",
            ),
            (Some("Q2"), "o/n: there is no file `Q2`: name one as o/n:NAME, of m-Q4_0.gguf"),
        ] {
            let error = weights("o/n", &all, part).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn only_what_is_read_is_downloaded() {
        let all = files(&[
            "config.json",
            "tokenizer.json",
            "vocab.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "additional_chat_templates/rag.jinja",
            "additional_chat_templates/x.txt",
            "README.md",
        ]);
        let read: Vec<&String> = companions(&all).collect();
        assert_eq!(read, ["config.json", "tokenizer.json", "additional_chat_templates/rag.jinja"]);
    }

    #[test]
    fn a_hostile_index_reaches_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index.json");
        for (text, said) in [
            ("{\"weight_map\": {\"a\": \"../../x\"}}", "not the name of a file"),
            ("{\"weight_map\": 3}", "no object `weight_map`"),
            ("nothing", "expected"),
        ] {
            std::fs::write(&index, text).unwrap();
            let error = shards(&index).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        std::fs::write(&index, "{\"weight_map\": {\"a\": \"2\", \"b\": \"1\", \"c\": \"2\"}}").unwrap();
        assert_eq!(shards(&index).unwrap(), ["1", "2"]);
    }
}
