//! JSON Lines: one object a line.

use std::{io::BufRead, path::Path};

use serde_json::{Map, Value};

use super::{
    DataError, Format, Located, Record, SourceConfig,
    file::DataFile,
    rows::{Fault, RawRow},
    source::SourceStream,
};

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads every record of a JSONL file, in the file's order; `.gz` and `.zst` files are decompressed.
///
/// Lines may end in `\n` or `\r\n`, a byte order mark at the start and blank lines are skipped. [`read`](super::read())
/// reads other formats too, and more than one file.
///
/// # Errors
/// If the file cannot be read or holds no record, and for the first line that is not UTF-8, not a JSON object or not
/// an `R`; the error names the file and the line.
///
/// # Example
/// ```
/// use align_model::data::{SftRecord, read_jsonl};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("train.jsonl");
/// std::fs::write(&path, "{\"prompt\": \"2 + 2 =\", \"completion\": \" 4\", \"source\": \"sums\"}\n")?;
/// let records = read_jsonl::<SftRecord>(&path)?;
///
/// assert_eq!(records[0].line, 1);
/// assert!(matches!(&records[0].record, SftRecord::PromptCompletion { completion, .. } if completion == " 4"));
/// assert_eq!(records[0].extra["source"], "sums");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_jsonl<R: Record>(path: impl AsRef<Path>) -> Result<Vec<Located<R>>, DataError> {
    let path = path.as_ref();
    let source = SourceConfig { format: Some(Format::Jsonl), ..SourceConfig::new(path.to_string_lossy()) };
    SourceStream::of_files(0, source, vec![DataFile::jsonl(path)]).collect()
}

/// The lines of a JSONL file.
pub(super) struct JsonlRows<B> {
    file: DataFile,
    content: B,
    bytes: Vec<u8>,
    line: usize,
    is_over: bool,
}

impl<B: BufRead> JsonlRows<B> {
    pub(super) fn new(file: DataFile, content: B) -> Self {
        Self { file, content, bytes: Vec::new(), line: 0, is_over: false }
    }

    /// Reads the next line that is not blank into `bytes`; `false` at the end of the file.
    fn advance(&mut self) -> Result<bool, Fault> {
        loop {
            self.bytes.clear();
            let read = self.content.read_until(b'\n', &mut self.bytes);
            if read.map_err(|error| Fault::File(self.file.unreadable(error)))? == 0 {
                return Ok(false);
            }
            self.line += 1;
            if self.line == 1 && self.bytes.starts_with(BYTE_ORDER_MARK) {
                self.bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.bytes.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

impl<B: BufRead> Iterator for JsonlRows<B> {
    type Item = Result<RawRow, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.advance() {
            Ok(true) => {}
            Ok(false) => {
                self.is_over = true;
                return None;
            }
            Err(fault) => {
                self.is_over = true;
                return Some(Err(fault));
            }
        }
        match parse_line(&self.file.path, self.line, &self.bytes) {
            Ok(columns) => Some(Ok((self.line, columns))),
            // The whole file is something else: every further line would be an error too.
            Err(error @ DataError::JsonArray { .. }) => {
                self.is_over = true;
                Some(Err(Fault::File(error)))
            }
            Err(error) => Some(Err(Fault::Row(error))),
        }
    }
}

fn parse_line(path: &Path, line: usize, content: &[u8]) -> Result<Map<String, Value>, DataError> {
    let text = std::str::from_utf8(content).map_err(|error| DataError::NotUtf8 {
        path: path.to_path_buf(),
        line,
        column: error.valid_up_to() + 1,
    })?;
    // Without the line's end: a position behind it would count from the next line.
    serde_json::from_str(text.trim_end()).map_err(|error| {
        if text.trim_start().starts_with('[') {
            return DataError::JsonArray { path: path.to_path_buf(), line };
        }
        DataError::Malformed { path: path.to_path_buf(), line, column: error.column().max(1), error }
    })
}
