//! Which files of a repository make up a dataset's split.
//!
//! Python's `datasets` finds splits by the same names: `train-00000-of-00003.parquet` belongs to `train`, and so do
//! `data/train.jsonl` and `train/part1.csv`; a file that names no split counts as `train`. A directory that is neither
//! `data` nor the name of a split is a subset, as in `socratic/test.jsonl`.

use std::collections::BTreeSet;

use super::HubError;

/// In order of preference, where a dataset comes in several.
const FORMATS: [&str; 4] = ["parquet", "jsonl", "csv", "json"];
const COMPRESSIONS: [&str; 2] = ["gz", "zst"];
const TRAIN: &str = "train";
/// Files that describe a dataset instead of holding it.
const DESCRIPTIONS: [&str; 4] =
    ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"];

/// A file of data and what its path says of it.
#[derive(Debug, Clone)]
struct DataFile<'a> {
    path: &'a str,
    /// Place in [`FORMATS`].
    format: usize,
    subset: String,
    split: Option<String>,
}

/// The files of a part of a dataset, in order: of a file, a split, a subset, or a `subset/split`; of `train` where no
/// part is named.
pub(super) fn select(
    repository: &str,
    files: &[String],
    part: Option<&str>,
) -> Result<Vec<String>, HubError> {
    if let Some(file) = part.filter(|part| files.iter().any(|file| file == part)) {
        return Ok(vec![file.to_owned()]);
    }
    let mut found: Vec<DataFile<'_>> = files.iter().filter_map(|path| DataFile::read(path)).collect();
    if found.is_empty() {
        return Err(HubError::NoData { repository: repository.into() });
    }
    if let Some(part) = part {
        let all = found.clone();
        found.retain(|file| file.is_in(part));
        if found.is_empty() {
            return Err(choice(repository, format!("there is no `{part}`"), &all));
        }
    }
    let subsets: BTreeSet<&str> = found.iter().map(|file| file.subset.as_str()).collect();
    if subsets.len() > 1 {
        let Some(usual) = ["", "default"].into_iter().find(|usual| subsets.contains(usual)) else {
            return Err(choice(repository, "there are several subsets".into(), &found));
        };
        found.retain(|file| file.subset == usual);
    }
    let splits: BTreeSet<Option<&str>> = found.iter().map(|file| file.split.as_deref()).collect();
    if splits.len() > 1 {
        let usual = [Some(TRAIN), None].into_iter().find(|usual| splits.contains(usual));
        let usual = usual.map(|split| split.map(str::to_owned));
        let Some(usual) = usual else {
            return Err(choice(
                repository,
                "there are several splits and none is called train".into(),
                &found,
            ));
        };
        found.retain(|file| file.split == usual);
    }
    let format = found.iter().map(|file| file.format).min();
    found.retain(|file| Some(file.format) == format);
    let mut paths: Vec<String> = found.into_iter().map(|file| file.path.to_owned()).collect();
    paths.sort_unstable();
    Ok(paths)
}

/// The first file that is missing among `train-00000-of-00003.parquet` and its like.
pub(super) fn missing_shard(files: &[String]) -> Option<String> {
    let numbered = |path: &str| {
        let name = path.rsplit('/').next()?;
        let (_, index, count) = shard(name)?;
        Some((index, count))
    };
    let count = files.iter().filter_map(|path| numbered(path)).map(|(_, count)| count).max()?;
    let present: BTreeSet<u32> = files.iter().filter_map(|path| numbered(path)).map(|(i, _)| i).collect();
    let missing = (0..count).find(|index| !present.contains(index))?;
    Some(format!("the file {missing:05}-of-{count:05}"))
}

impl<'a> DataFile<'a> {
    fn read(path: &'a str) -> Option<Self> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if path.split('/').any(|part| part.starts_with('.')) || DESCRIPTIONS.contains(&name) {
            return None;
        }
        let (stem, extension) = match name.rsplit_once('.')? {
            (inner, compression) if COMPRESSIONS.contains(&compression) => inner.rsplit_once('.')?,
            parts => parts,
        };
        let format = FORMATS.iter().position(|format| *format == extension)?;
        let directories: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
        let named = shard(stem).map(|(split, ..)| split).filter(|split| !split.is_empty());
        let split = named.map(str::to_owned).or_else(|| {
            let parts = std::iter::once(stem).chain(directories.iter().rev().copied());
            parts.into_iter().find_map(keyword).map(str::to_owned)
        });
        let is_subset = |part: &&&str| **part != "data" && keyword(part) != Some(**part);
        let subset: Vec<&str> = directories.iter().filter(is_subset).copied().collect();
        Some(Self { path, format, subset: subset.join("/"), split })
    }

    fn split(&self) -> &str {
        self.split.as_deref().unwrap_or(TRAIN)
    }

    /// Whether `part` names the file's split, its subset, or both.
    fn is_in(&self, part: &str) -> bool {
        part == self.split() || part == self.subset || part == self.name()
    }

    /// The part that a user can name.
    fn name(&self) -> String {
        if self.subset.is_empty() { self.split().into() } else { format!("{}/{}", self.subset, self.split()) }
    }
}

/// Split, number and count of `train-00000-of-00003` and `train-00000-of-00003-0123456789abcdef`.
fn shard(stem: &str) -> Option<(&str, u32, u32)> {
    let number = |text: &str| (text.len() == 5).then(|| text.parse::<u32>().ok()).flatten();
    let (before, after) = stem.split_once("-of-")?;
    let (split, index) = before.rsplit_once('-')?;
    Some((split, number(index)?, number(after.get(..5)?)?))
}

/// The split that a name mentions: a word of it, between signs and digits.
fn keyword(name: &str) -> Option<&'static str> {
    let words = name.split(|c: char| !c.is_alphabetic());
    words.map(str::to_lowercase).find_map(|word| match word.as_str() {
        "train" | "training" => Some(TRAIN),
        "test" | "testing" | "eval" | "evaluation" => Some("test"),
        "validation" | "valid" | "dev" | "val" => Some("validation"),
        _ => None,
    })
}

fn choice(repository: &str, problem: String, files: &[DataFile<'_>]) -> HubError {
    let choices: BTreeSet<String> = files.iter().map(DataFile::name).collect();
    HubError::Choice { repository: repository.into(), problem, choices: choices.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(files: &[&str], part: Option<&str>) -> Result<Vec<String>, String> {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        select("o/n", &files, part).map_err(|error| error.to_string())
    }

    const CAPYBARA: [&str; 5] = [
        ".gitattributes",
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00001-of-00002.parquet",
        "data/train-00000-of-00002.parquet",
    ];

    #[test]
    fn the_training_split_is_the_usual_one() {
        let shards = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
        assert_eq!(selected(&CAPYBARA, None).unwrap(), shards);
        assert_eq!(selected(&CAPYBARA, Some("train")).unwrap(), shards);
        assert_eq!(selected(&CAPYBARA, Some("test")).unwrap(), CAPYBARA[2..3]);
        assert_eq!(selected(&CAPYBARA, Some(CAPYBARA[3])).unwrap(), CAPYBARA[3..4]);
    }

    #[test]
    fn splits_are_found_by_their_names() {
        for (path, split) in [
            ("train.jsonl", "train"),
            ("my_train_file.csv", "train"),
            ("training.jsonl.gz", "train"),
            ("dev.jsonl.zst", "validation"),
            ("val-1.json", "validation"),
            ("test/part.parquet", "test"),
            ("data/eval/0.parquet", "test"),
            ("data/train_sft-00000-of-00003-a3ecf92756993583.parquet", "train_sft"),
            ("latest.jsonl", "train"),
        ] {
            assert_eq!(DataFile::read(path).unwrap().split(), split, "{path}");
        }
        for other in ["README.md", "x.parquet.txt", "dataset_infos.json", ".cache/x.json", "train.bin.gz"] {
            assert!(DataFile::read(other).is_none(), "{other}");
        }
    }

    #[test]
    fn files_without_a_split_are_the_training_data() {
        assert_eq!(selected(&["b.jsonl", "a.jsonl"], None).unwrap(), ["a.jsonl", "b.jsonl"]);
        assert_eq!(selected(&["a.jsonl", "test.jsonl"], None).unwrap(), ["a.jsonl"]);
        assert_eq!(selected(&["only/test.jsonl"], None).unwrap(), ["only/test.jsonl"]);
    }

    #[test]
    fn one_format_is_read() {
        assert_eq!(
            selected(&["train.csv", "train.parquet", "train.jsonl"], None).unwrap(),
            ["train.parquet"]
        );
        assert_eq!(selected(&["data.csv", "labels.json"], None).unwrap(), ["data.csv"]);
    }

    #[test]
    fn a_subset_is_named_where_there_are_several() {
        let files = ["main/train-00000-of-00001.parquet", "main/test.parquet", "socratic/train.parquet"];
        let error = selected(&files, None).unwrap_err();
        assert_eq!(
            error,
            "o/n: there are several subsets: name one as o/n:NAME, of main/test, main/train, socratic/train"
        );
        assert_eq!(selected(&files, Some("main")).unwrap(), files[..1]);
        assert_eq!(selected(&files, Some("main/test")).unwrap(), files[1..2]);
        assert_eq!(selected(&files, Some("socratic")).unwrap(), files[2..]);
        assert_eq!(selected(&["default/train.csv", "other/train.csv"], None).unwrap(), ["default/train.csv"]);
    }

    #[test]
    fn what_cannot_be_decided_is_listed() {
        let files = ["data/train_gen-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"];
        assert_eq!(
            selected(&files, None).unwrap_err(),
            "o/n: there are several splits and none is called train: name one as o/n:NAME, of train_gen, train_sft"
        );
        assert_eq!(selected(&files, Some("train_sft")).unwrap(), files[1..]);
        assert!(selected(&files, Some("dev")).unwrap_err().starts_with("o/n: there is no `dev`: "));
        assert!(selected(&["README.md"], None).unwrap_err().contains("no data in a known format"));
    }

    #[test]
    fn a_missing_shard_is_noticed() {
        let shards: Vec<String> = [2, 0].map(|i| format!("data/train-{i:05}-of-00003-ab.parquet")).into();
        assert_eq!(missing_shard(&shards).unwrap(), "the file 00001-of-00003");
        assert!(missing_shard(&["train.jsonl".to_owned()]).is_none());
    }
}
