//! Tables of separated values: CSV and TSV.

use std::io::{BufRead, Read};

use csv::{ByteRecord, ErrorKind, Position, Reader, ReaderBuilder};
use serde_json::{Map, Value};

use super::{
    DataError, RecordError,
    file::DataFile,
    rows::{Fault, RawRow},
};

/// The rows of a table under a header.
///
/// An empty cell is an absent value. A cell that spells a list of messages in JSON is that list; every other cell is text.
pub(super) struct TableRows<B> {
    file: DataFile,
    reader: Reader<Recent<B>>,
    header: Vec<String>,
    is_over: bool,
}

impl<B: BufRead> TableRows<B> {
    pub(super) fn new(file: DataFile, content: B, delimiter: u8) -> Result<Self, DataError> {
        let content = Recent { content, bytes: Vec::new(), start: 0 };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(content);
        let cells = reader.byte_headers().map_err(|error| failed(&file, error))?;
        let mut header: Vec<String> = Vec::with_capacity(cells.len());
        for cell in cells {
            let name = std::str::from_utf8(cell).map_err(|error| DataError::NotUtf8 {
                path: file.path.to_path_buf(),
                line: 1,
                column: error.valid_up_to() + 1,
            })?;
            if header.iter().any(|known| known == name) {
                return Err(DataError::DuplicateColumn {
                    path: file.path.to_path_buf(),
                    column: name.to_owned(),
                });
            }
            header.push(name.to_owned());
        }
        Ok(Self { file, reader, header, is_over: false })
    }

    /// The line where the row begins that was read from `position` on.
    ///
    /// That position lies behind the row before, but before the rest of its line's end and before blank lines.
    fn line(&mut self, position: &Position) -> usize {
        let bytes = self.reader.get_mut().since(position.byte());
        let ends = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        position.line() as usize + ends.filter(|byte| **byte == b'\n').count()
    }

    fn columns(&self, record: &ByteRecord) -> Result<Map<String, Value>, RecordError> {
        let cells = self.header.iter().zip(record);
        let column = |(name, cell): (&String, &[u8])| match std::str::from_utf8(cell) {
            Ok(text) if is_python(text) => Err(RecordError::PythonList { column: name.clone() }),
            Ok(text) => Ok((name.clone(), cell_value(text))),
            Err(_) => Err(RecordError::CellNotUtf8 { column: name.clone() }),
        };
        cells.map(column).collect()
    }
}

impl<B: BufRead> Iterator for TableRows<B> {
    type Item = Result<RawRow, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let mut record = ByteRecord::new();
        let start = self.reader.position().clone();
        let read = self.reader.read_byte_record(&mut record);
        let problem = match read {
            Ok(true) => match self.columns(&record) {
                Ok(columns) => return Some(Ok((self.line(&start), columns))),
                Err(problem) => problem,
            },
            Ok(false) => {
                self.is_over = true;
                return None;
            }
            Err(error) => {
                let ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() else {
                    self.is_over = true;
                    return Some(Err(Fault::File(failed(&self.file, error))));
                };
                RecordError::Cells { found: *len as usize, expected: *expected_len as usize }
            }
        };
        let (path, line) = (self.file.path.to_path_buf(), self.line(&start));
        Some(Err(Fault::Row(DataError::Record { path, line, problem })))
    }
}

/// Keeps what was read last, to look back where a row began.
struct Recent<B> {
    content: B,
    bytes: Vec<u8>,
    /// The place of the first of `bytes` in the file.
    start: u64,
}

impl<B> Recent<B> {
    /// What was read from a place of the file on; what lies before it is forgotten.
    fn since(&mut self, place: u64) -> &[u8] {
        let known = (place.saturating_sub(self.start) as usize).min(self.bytes.len());
        self.bytes.drain(..known);
        self.start += known as u64;
        &self.bytes
    }
}

impl<B: Read> Read for Recent<B> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.content.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

fn failed(file: &DataFile, error: csv::Error) -> DataError {
    match error.into_kind() {
        ErrorKind::Io(error) => file.unreadable(error),
        // Reading bytes fails in no other way.
        other => file.unreadable(std::io::Error::other(format!("{other:?}"))),
    }
}

fn cell_value(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    if text.trim_start().starts_with('[')
        && let Ok(Value::Array(list)) = serde_json::from_str(text)
        && !list.is_empty()
        && list.iter().all(is_message)
    {
        return Value::Array(list);
    }
    Value::String(text.to_owned())
}

/// Whether a cell is what Python prints for a list of messages: text for JSON, but hardly a text to learn.
fn is_python(text: &str) -> bool {
    text.trim_start().starts_with("[{'") && (text.contains("'role': ") || text.contains("'from': "))
}

fn is_message(value: &Value) -> bool {
    value.get("role").is_some() || value.get("from").is_some()
}

#[cfg(test)]
mod tests;
