//! The rows of one file, whatever its format.

use serde_json::{Map, Value};

use super::{DataError, Format, file::DataFile, json, jsonl, table};

/// A row as it stands in the file: its line, of a Parquet file its number, and its columns.
pub(super) type RawRow = (usize, Map<String, Value>);

/// Why there is no row.
#[derive(Debug)]
pub(super) enum Fault {
    /// This row is bad; the next may be good.
    Row(DataError),
    /// Nothing more can be read from this file.
    File(DataError),
}

/// The rows of a file, one by one; nothing comes after a [`Fault::File`].
pub(super) type Rows = Box<dyn Iterator<Item = Result<RawRow, Fault>> + Send>;

/// Opens a file.
pub(super) fn open(file: &DataFile, field: Option<&str>) -> Result<Rows, DataError> {
    Ok(match file.format {
        Format::Jsonl => Box::new(jsonl::JsonlRows::new(file.clone(), file.open()?)),
        Format::Json => Box::new(json::JsonRows::new(file.clone(), file.open()?, field)),
        Format::Csv => Box::new(table::TableRows::new(file.clone(), file.open()?, b',')?),
        Format::Tsv => Box::new(table::TableRows::new(file.clone(), file.open()?, b'\t')?),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(super::parquet_file::ParquetRows::open(file)?),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => {
            let path = file.path.to_path_buf();
            return Err(DataError::Feature { path, format: file.format, feature: "parquet" });
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufReader, Read},
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::{super::Compression, *};

    /// A file without end that counts what is read of it.
    struct Endless {
        start: &'static str,
        row: &'static str,
        at: usize,
        read: Arc<AtomicUsize>,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            for byte in &mut *buffer {
                *byte = match self.start.as_bytes().get(self.at) {
                    Some(byte) => *byte,
                    None => self.row.as_bytes()[(self.at - self.start.len()) % self.row.len()],
                };
                self.at += 1;
            }
            self.read.fetch_add(buffer.len(), Ordering::Relaxed);
            Ok(buffer.len())
        }
    }

    #[test]
    fn no_more_is_read_than_a_buffer_ahead() {
        let cases = [
            (Format::Jsonl, "", "{\"text\": \"twenty-four bytes\"}\n"),
            (Format::Json, "[{\"text\": 1}", ",\n{\"text\": \"twenty-four bytes\"}"),
            (Format::Csv, "text,id\n", "\"twenty, and four\",bytes\n"),
        ];
        for (format, start, row) in cases {
            let file = DataFile { path: Path::new("a").into(), format, compression: Compression::None };
            let read = Arc::new(AtomicUsize::new(0));
            let content = BufReader::new(Endless { start, row, at: 0, read: read.clone() });
            let rows: Rows = match format {
                Format::Jsonl => Box::new(jsonl::JsonlRows::new(file, content)),
                Format::Json => Box::new(json::JsonRows::new(file, content, None)),
                _ => Box::new(table::TableRows::new(file, content, b',').unwrap()),
            };
            for (index, item) in rows.take(100_000).enumerate() {
                assert!(item.unwrap().0 > 0);
                let needed = start.len() + (index + 1) * row.len();
                assert!(read.load(Ordering::Relaxed) <= needed + 4 * 8192, "{format}: row {index}");
            }
        }
    }
}
