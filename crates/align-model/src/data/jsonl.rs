//! JSON Lines: one object a line.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{DataError, Located, Record, Row};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads every record of a JSONL file, in the file's order.
///
/// Lines may end in `\n` or `\r\n`, a byte order mark at the start and blank lines are skipped.
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
    let path: Arc<Path> = path.as_ref().into();
    let unreadable = |source| DataError::Read { path: path.to_path_buf(), source };
    let mut file = BufReader::new(File::open(&path).map_err(unreadable)?);
    let mut records = Vec::new();
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        line += 1;
        let mut content = bytes.as_slice();
        if line == 1 {
            content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
        }
        if content.trim_ascii().is_empty() {
            continue;
        }
        let mut row = Row::new(parse_line(&path, line, content)?);
        let record = R::from_row(&mut row).map_err(|problem| DataError::Record {
            path: path.to_path_buf(),
            line,
            problem,
        })?;
        records.push(Located { path: path.clone(), line, record, extra: row.into_rest() });
    }
    if records.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf() });
    }
    Ok(records)
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
