//! Tables of separated values: CSV and TSV.

use std::io::BufRead;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
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
    reader: Reader<B>,
    header: Vec<String>,
    is_over: bool,
}

impl<B: BufRead> TableRows<B> {
    pub(super) fn new(file: DataFile, content: B, delimiter: u8) -> Result<Self, DataError> {
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

    fn columns(&self, record: &ByteRecord) -> Result<Map<String, Value>, RecordError> {
        let cells = self.header.iter().zip(record);
        let column = |(name, cell): (&String, &[u8])| match std::str::from_utf8(cell) {
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
        let bad = |line, problem| {
            Fault::Row(DataError::Record { path: self.file.path.to_path_buf(), line, problem })
        };
        match self.reader.read_byte_record(&mut record) {
            Ok(true) => {
                let line = record.position().map_or(0, |position| position.line() as usize);
                Some(
                    self.columns(&record)
                        .map(|columns| (line, columns))
                        .map_err(|problem| bad(line, problem)),
                )
            }
            Ok(false) => {
                self.is_over = true;
                None
            }
            Err(error) => match error.kind() {
                ErrorKind::UnequalLengths { pos, expected_len, len } => {
                    let line = pos.as_ref().map_or(0, |position| position.line() as usize);
                    let (found, expected) = (*len as usize, *expected_len as usize);
                    Some(Err(bad(line, RecordError::Cells { found, expected })))
                }
                _ => {
                    self.is_over = true;
                    Some(Err(Fault::File(failed(&self.file, error))))
                }
            },
        }
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

fn is_message(value: &Value) -> bool {
    value.get("role").is_some() || value.get("from").is_some()
}

#[cfg(test)]
mod tests;
