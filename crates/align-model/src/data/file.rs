//! Data files: which ones a path stands for, how they are written, and their bytes.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Compression, DataError, Format, SourceConfig};

/// A data file and how to read it.
#[derive(Debug, Clone)]
pub(super) struct DataFile {
    pub(super) path: Arc<Path>,
    pub(super) format: Format,
    pub(super) compression: Compression,
}

impl DataFile {
    /// The files of a source, in the order of their names.
    pub(super) fn of(source: &SourceConfig) -> Result<Vec<Self>, DataError> {
        let path = Path::new(&source.path);
        let files = if path.is_dir() {
            listed(path, |name| is_data_name(name, source))?
        } else if !path.exists() && is_pattern(path) {
            let (directory, pattern) = split_pattern(path);
            listed(directory, |name| matches(pattern.as_bytes(), name.as_bytes()))?
        } else {
            return Ok(vec![Self::new(path, source)?]);
        };
        if files.is_empty() {
            return Err(DataError::NoFiles { path: path.to_path_buf() });
        }
        files.iter().map(|file| Self::new(file, source)).collect()
    }

    /// A JSONL file, compressed as its name tells.
    pub(super) fn jsonl(path: &Path) -> Self {
        let (compression, _) = told_by(&path.to_string_lossy());
        Self { path: path.into(), format: Format::Jsonl, compression }
    }

    fn new(path: &Path, source: &SourceConfig) -> Result<Self, DataError> {
        let (by_name, format) = told_by(&path.to_string_lossy());
        let format =
            source.format.or(format).ok_or_else(|| DataError::UnknownFormat { path: path.to_path_buf() })?;
        Ok(Self { path: path.into(), format, compression: source.compression.unwrap_or(by_name) })
    }

    /// The file's content, decompressed.
    pub(super) fn open(&self) -> Result<Box<dyn BufRead + Send>, DataError> {
        let file = File::open(&self.path).map_err(|error| self.unreadable(error))?;
        Ok(match self.compression {
            Compression::None => Box::new(BufReader::new(file)),
            Compression::Gzip => {
                Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))))
            }
            Compression::Zstd => {
                let decoder =
                    zstd::stream::read::Decoder::new(file).map_err(|error| self.unreadable(error))?;
                Box::new(BufReader::new(decoder))
            }
        })
    }

    /// What a failed reading means.
    pub(super) fn unreadable(&self, source: io::Error) -> DataError {
        let path = self.path.to_path_buf();
        let is_system = source.raw_os_error().is_some();
        match (self.compression, source.kind()) {
            (Compression::None, _) => DataError::Read { path, source },
            _ if is_system => DataError::Read { path, source },
            (compression, io::ErrorKind::UnexpectedEof) => DataError::Truncated {
                path,
                part: if compression == Compression::Gzip { "gzip stream" } else { "zstd stream" },
            },
            (compression, _) => DataError::Compressed { path, compression, source },
        }
    }
}

/// What the end of a name tells: the compression, and the format where it is a known one.
fn told_by(name: &str) -> (Compression, Option<Format>) {
    let name = name.to_ascii_lowercase();
    let (stem, compression) =
        [(".gz", Compression::Gzip), (".zst", Compression::Zstd), (".zstd", Compression::Zstd)]
            .into_iter()
            .find_map(|(ending, compression)| Some((name.strip_suffix(ending)?, compression)))
            .unwrap_or((&name, Compression::None));
    let format = match stem.rsplit_once('.').map(|(_, ending)| ending) {
        Some("jsonl" | "ndjson") => Some(Format::Jsonl),
        Some("json") => Some(Format::Json),
        Some("csv") => Some(Format::Csv),
        Some("tsv") => Some(Format::Tsv),
        Some("parquet") => Some(Format::Parquet),
        _ => None,
    };
    (compression, format)
}

/// Whether a file of a directory belongs to the data.
fn is_data_name(name: &str, source: &SourceConfig) -> bool {
    !name.starts_with('.')
        && told_by(name).1.is_some_and(|format| source.format.is_none_or(|wanted| wanted == format))
}

/// The regular files of a directory whose names are wanted, in the order of their names.
fn listed(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, DataError> {
    let unreadable = |source| DataError::Read { path: directory.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(&is_wanted) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_pattern(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(['*', '?']))
}

fn split_pattern(path: &Path) -> (&Path, String) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    (directory, pattern)
}

/// Whether a name fits a pattern in which `*` stands for any bytes and `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|taken| matches(rest, &name[taken..])),
        ([b'?', pattern @ ..], [_, name @ ..]) => matches(pattern, name),
        ([first, pattern @ ..], [byte, name @ ..]) => first == byte && matches(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_format_and_compression() {
        let cases = [
            ("a/train.jsonl", Compression::None, Some(Format::Jsonl)),
            ("train.NDJSON.gz", Compression::Gzip, Some(Format::Jsonl)),
            ("train.json.zst", Compression::Zstd, Some(Format::Json)),
            ("train.v2.csv.zstd", Compression::Zstd, Some(Format::Csv)),
            ("train.tsv", Compression::None, Some(Format::Tsv)),
            ("train-00000-of-00002.parquet", Compression::None, Some(Format::Parquet)),
            ("train.gz", Compression::Gzip, None),
            ("jsonl", Compression::None, None),
            ("notes.txt", Compression::None, None),
        ];
        for (name, compression, format) in cases {
            assert_eq!(told_by(name), (compression, format), "{name}");
        }
    }

    #[test]
    fn patterns_match_names() {
        let fits = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
        assert!(fits("train-*.parquet", "train-00000-of-00002.parquet"));
        assert!(fits("*", "") && fits("a?c*", "abc"));
        assert!(!fits("train-*.parquet", "test-0.parquet") && !fits("a?c", "ac") && !fits("", "a"));
    }
}
