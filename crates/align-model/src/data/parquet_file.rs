//! Parquet files, nested columns included.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
};

use parquet::{
    errors::ParquetError,
    file::{
        reader::{FileReader as _, RowGroupReader},
        serialized_reader::SerializedFileReader,
    },
    record::{
        Field, Row,
        reader::{ReaderIter, TreeBuilder},
    },
};
use serde_json::{Map, Value};

use super::{
    Compression, DataError, RecordError,
    file::DataFile,
    rows::{Fault, RawRow},
};

/// The rows of a Parquet file. One row group is open at a time, and of it one page a column.
pub(super) struct ParquetRows {
    file: DataFile,
    reader: SerializedFileReader<File>,
    group: Option<ReaderIter>,
    next_group: usize,
    row: usize,
    is_over: bool,
}

const MAGIC: &[u8; 4] = b"PAR1";

impl ParquetRows {
    pub(super) fn open(file: &DataFile) -> Result<Self, DataError> {
        let content = content(file)?;
        check_ends(file, &content)?;
        let reader = guarded(|| SerializedFileReader::new(content)).map_err(|reason| DataError::Parquet {
            path: file.path.to_path_buf(),
            row: None,
            reason,
        })?;
        Ok(Self { file: file.clone(), reader, group: None, next_group: 0, row: 0, is_over: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>, String> {
        loop {
            let group = self.group.as_mut();
            if let Some(row) = guarded(|| group.and_then(Iterator::next).transpose())? {
                return Ok(Some(row));
            }
            if self.next_group == self.reader.num_row_groups() {
                return Ok(None);
            }
            let (reader, index) = (&self.reader, self.next_group);
            self.group = Some(guarded(|| {
                let group: Box<dyn RowGroupReader> = reader.get_row_group(index)?;
                TreeBuilder::new().as_iter(reader.metadata().file_metadata().schema_descr_ptr(), &*group)
            })?);
            self.next_group += 1;
        }
    }
}

impl Iterator for ParquetRows {
    type Item = Result<RawRow, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        self.row += 1;
        let (path, line) = (self.file.path.to_path_buf(), self.row);
        match self.next_row() {
            Ok(Some(row)) => {
                let bad = |problem| Fault::Row(DataError::Record { path, line, problem });
                Some(columns(&row).map(|columns| (line, columns)).map_err(bad))
            }
            Ok(None) => {
                self.is_over = true;
                None
            }
            Err(reason) => {
                self.is_over = true;
                Some(Err(Fault::File(DataError::Parquet { path, row: Some(line), reason })))
            }
        }
    }
}

/// The file itself, or what it holds decompressed: the format has to be read from its end.
fn content(file: &DataFile) -> Result<File, DataError> {
    let unreadable = |error| file.unreadable(error);
    if file.compression == Compression::None {
        return File::open(&file.path).map_err(unreadable);
    }
    let mut content = tempfile::tempfile().map_err(unreadable)?;
    std::io::copy(&mut file.open()?, &mut content).map_err(unreadable)?;
    Ok(content)
}

/// Tells a file that was cut off from one that is none.
fn check_ends(file: &DataFile, mut content: &File) -> Result<(), DataError> {
    let mut ends = [[0; 4]; 2];
    let [start, end] = &mut ends;
    let read = content
        .seek(SeekFrom::Start(0))
        .and_then(|_| content.read_exact(start))
        .and_then(|()| content.seek(SeekFrom::End(-4)))
        .and_then(|start| content.read_exact(end).map(|()| start + 4));
    let path = || file.path.to_path_buf();
    match read {
        Err(error) if error.raw_os_error().is_some() => Err(DataError::Read { path: path(), source: error }),
        _ if start != MAGIC => Err(DataError::Parquet {
            path: path(),
            row: None,
            reason: "it does not begin with PAR1".to_owned(),
        }),
        // The start's mark is not also the end's.
        Ok(length) if length > 8 && (end == MAGIC || end == b"PARE") => Ok(()),
        _ => Err(DataError::Truncated { path: path(), part: "Parquet footer" }),
    }
}

/// Runs the reader, which panics where a file contradicts itself.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "the file contradicts itself".to_owned())),
    }
}

fn columns(row: &Row) -> Result<Map<String, Value>, RecordError> {
    let column = |(name, field): (&String, &Field)| match value(field) {
        Some(value) => Ok((name.clone(), value)),
        None => Err(RecordError::Binary { column: name.clone() }),
    };
    row.get_column_iter().map(column).collect()
}

/// The JSON value of a field; `None` where it holds bytes that are not text.
fn value(field: &Field) -> Option<Value> {
    match field {
        // Older writers do not mark their strings as such.
        Field::Bytes(bytes) => Some(Value::String(std::str::from_utf8(bytes.data()).ok()?.to_owned())),
        Field::Group(row) => {
            let fields = row.get_column_iter();
            fields
                .map(|(name, field)| Some((name.clone(), value(field)?)))
                .collect::<Option<_>>()
                .map(Value::Object)
        }
        Field::ListInternal(list) => {
            list.elements().iter().map(value).collect::<Option<_>>().map(Value::Array)
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let entry = |(key, field): &(Field, Field)| {
                let name = match value(key)? {
                    Value::String(name) => name,
                    other => other.to_string(),
                };
                Some((name, value(field)?))
            };
            entries.map(entry).collect::<Option<_>>().map(Value::Object)
        }
        primitive => Some(primitive.to_json_value()),
    }
}

#[cfg(test)]
mod tests;
