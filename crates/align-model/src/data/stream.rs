//! Data sets read record by record, and read as a whole.

use std::fmt;

use super::{
    Combine, DataError, DatasetConfig, Located, Record, SkippedRows, interleave::Interleave, order::pass_rng,
    source::SourceStream,
};

/// Records in memory.
#[derive(Debug)]
pub struct Dataset<R> {
    /// The records, in the order of the files; never empty.
    pub records: Vec<Located<R>>,
    /// The rows that `on_bad_row` = "skip" left out.
    pub skipped: SkippedRows,
}

/// Records one by one, in the order of the files; ends after the first error.
pub struct RecordStream<R> {
    order: Order<R>,
}

/// Where the next record comes from.
enum Order<R> {
    Concatenate { sources: Vec<SourceStream<R>>, current: usize },
    Interleave(Box<Interleave<R>>),
}

/// Reads a data set into memory.
///
/// # Errors
/// If the configuration contradicts itself, a file cannot be read, a source holds no record, or a row is not an `R` and
/// may not be skipped; the error names the file and the row.
///
/// # Example
/// ```
/// use align_model::data::{DatasetConfig, SftRecord, SourceConfig, read};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("pairs.csv");
/// # let name = path.to_str().expect("a temporary path is text");
/// std::fs::write(&path, "question,good,bad\n\"1, 2, …\",3,4\n")?;
/// let source = SourceConfig::new(name).column("prompt", "question").column("completion", "good");
/// let data = read::<SftRecord>(&source.into())?;
///
/// let expected = SftRecord::PromptCompletion { prompt: "1, 2, …".into(), completion: "3".into() };
/// assert_eq!(data.records[0].record, expected);
/// assert_eq!(data.records[0].extra["bad"], "4");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read<R: Record>(config: &DatasetConfig) -> Result<Dataset<R>, DataError> {
    let mut stream = stream(config)?;
    let records = stream.by_ref().collect::<Result<_, _>>()?;
    Ok(Dataset { records, skipped: stream.into_skipped() })
}

/// Reads a data set record by record, in the order in which [`read`](read()) gives them; memory holds one row of each
/// source, of a Parquet file one page of each column.
///
/// # Errors
/// If the configuration contradicts itself or names no file. What is wrong inside a file comes as an item.
pub fn stream<R: Record>(config: &DatasetConfig) -> Result<RecordStream<R>, DataError> {
    open(config, 0)
}

/// The records of one pass; sources that are mixed at random are mixed anew in each.
pub(super) fn open<R: Record>(config: &DatasetConfig, pass: u64) -> Result<RecordStream<R>, DataError> {
    config.check()?;
    let order = match config.combine {
        Combine::Concatenate => {
            let sources = config.sources.iter().enumerate();
            let sources = sources.map(|(index, source)| SourceStream::open(index, source.clone()));
            Order::Concatenate { sources: sources.collect::<Result<_, _>>()?, current: 0 }
        }
        Combine::Interleave { stop, seed } => {
            Order::Interleave(Box::new(Interleave::open(&config.sources, stop, pass_rng(seed, pass))?))
        }
    };
    Ok(RecordStream { order })
}

impl<R: Record> RecordStream<R> {
    /// The rows that `on_bad_row` = "skip" has left out so far.
    #[must_use]
    pub fn into_skipped(self) -> SkippedRows {
        let mut all = SkippedRows::default();
        let sources = match self.order {
            Order::Concatenate { sources, .. } => sources,
            Order::Interleave(interleave) => interleave.into_streams(),
        };
        for source in sources {
            all.append(source.into_skipped());
        }
        all
    }
}

impl<R: Record> Iterator for RecordStream<R> {
    type Item = Result<Located<R>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.order {
            Order::Interleave(interleave) => interleave.next(),
            Order::Concatenate { sources, current } => loop {
                match sources.get_mut(*current)?.next() {
                    Some(Ok(record)) => return Some(Ok(record)),
                    Some(Err(error)) => {
                        *current = sources.len();
                        return Some(Err(error));
                    }
                    None => *current += 1,
                }
            },
        }
    }
}

impl<R> fmt::Debug for RecordStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match &self.order {
            Order::Concatenate { .. } => "Concatenate",
            Order::Interleave(_) => "Interleave",
        };
        f.debug_struct("RecordStream").field("order", &order).finish_non_exhaustive()
    }
}
