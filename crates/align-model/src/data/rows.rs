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
