//! The records of one source, one by one.

use std::{marker::PhantomData, path::Path, sync::Arc, vec};

use serde_json::{Map, Value};

use super::{
    DataError, Located, OnBadRow, Record, RecordError, Row, SourceConfig,
    file::DataFile,
    rows::{self, Fault, Rows},
};

/// How many errors of skipped rows are kept.
const KEPT: usize = 100;

/// Bad rows that were left out.
#[derive(Debug, Default)]
pub struct SkippedRows {
    /// How many.
    pub count: usize,
    /// What was wrong with the first hundred, and where.
    pub first: Vec<DataError>,
}

/// The records of one source, in the order of its files and rows.
pub(super) struct SourceStream<R> {
    source: usize,
    config: SourceConfig,
    files: vec::IntoIter<DataFile>,
    open: Option<(Arc<Path>, Rows)>,
    /// Rows that were read, those passed over included.
    rows: usize,
    yielded: usize,
    skipped: SkippedRows,
    is_over: bool,
    record: PhantomData<fn() -> R>,
}

impl<R: Record> SourceStream<R> {
    pub(super) fn open(source: usize, config: SourceConfig) -> Result<Self, DataError> {
        let files = DataFile::of(&config)?;
        Ok(Self::of_files(source, config, files))
    }

    pub(super) fn of_files(source: usize, config: SourceConfig, files: Vec<DataFile>) -> Self {
        Self {
            source,
            config,
            files: files.into_iter(),
            open: None,
            rows: 0,
            yielded: 0,
            skipped: SkippedRows::default(),
            is_over: false,
            record: PhantomData,
        }
    }

    /// What was left out so far.
    pub(super) fn into_skipped(self) -> SkippedRows {
        self.skipped
    }

    /// The next record; a [`Fault::Row`] can be skipped.
    fn advance(&mut self) -> Result<Option<Located<R>>, Fault> {
        loop {
            if self.config.limit.is_some_and(|limit| self.rows >= self.config.skip.saturating_add(limit)) {
                return Ok(None);
            }
            let Some((path, rows)) = &mut self.open else {
                let Some(file) = self.files.next() else { return Ok(None) };
                let rows = rows::open(&file, self.config.field.as_deref()).map_err(Fault::File)?;
                self.open = Some((file.path, rows));
                continue;
            };
            let Some(row) = rows.next() else {
                self.open = None;
                continue;
            };
            if let Err(fault @ Fault::File(_)) = row {
                return Err(fault);
            }
            self.rows += 1;
            if self.rows <= self.config.skip {
                continue;
            }
            let (line, columns) = row?;
            let path = path.clone();
            return match prepare(columns, &self.config).and_then(|mut row| Ok((R::from_row(&mut row)?, row)))
            {
                Ok((record, row)) => {
                    Ok(Some(Located { source: self.source, path, line, record, extra: row.into_rest() }))
                }
                Err(problem) => {
                    Err(Fault::Row(DataError::Record { path: path.to_path_buf(), line, problem }))
                }
            };
        }
    }

    /// Ends the stream; a source without a single record is an error.
    fn end(&mut self) -> Option<DataError> {
        self.is_over = true;
        if self.yielded > 0 {
            return None;
        }
        let path = self.config.path.clone().into();
        if self.rows == 0 {
            return Some(DataError::Empty { path });
        }
        let bad = self.skipped.count;
        let first = self.skipped.first.drain(..).next().map(Box::new);
        Some(DataError::NoneLeft { path, rows: self.rows, passed: self.rows - bad, bad, first })
    }
}

impl<R: Record> Iterator for SourceStream<R> {
    type Item = Result<Located<R>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            match self.advance() {
                Ok(Some(record)) => {
                    self.yielded += 1;
                    return Some(Ok(record));
                }
                Ok(None) => return self.end().map(Err),
                Err(Fault::Row(error)) if self.config.on_bad_row == OnBadRow::Skip => self.skipped.add(error),
                Err(Fault::Row(error) | Fault::File(error)) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl SkippedRows {
    fn add(&mut self, error: DataError) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(error);
        }
    }

    /// Takes up what was left out elsewhere.
    pub(super) fn append(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(KEPT);
    }
}

/// The columns of a row under the names and in the forms that records ask for.
fn prepare(columns: Map<String, Value>, config: &SourceConfig) -> Result<Row, RecordError> {
    let mut columns = rename(columns, config)?;
    let failed = config.transcript.map(|transcript| transcript.convert(&mut columns));
    Ok(Row::new(columns).with_failed(failed.unwrap_or_default()))
}

/// Renames all columns at once, so that two may change places; one column may be taken under two names.
fn rename(mut columns: Map<String, Value>, config: &SourceConfig) -> Result<Map<String, Value>, RecordError> {
    if config.columns.is_empty() {
        return Ok(columns);
    }
    let mut renamed = Vec::with_capacity(config.columns.len());
    for (ours, theirs) in &config.columns {
        match columns.get(theirs) {
            Some(value) => renamed.push((ours, value.clone())),
            None => {
                return Err(RecordError::Renamed {
                    ours: ours.clone(),
                    theirs: theirs.clone(),
                    found: columns.keys().cloned().collect(),
                });
            }
        }
    }
    for theirs in config.columns.values() {
        columns.shift_remove(theirs);
    }
    for (ours, value) in renamed {
        columns.insert(ours.clone(), value);
    }
    Ok(columns)
}
