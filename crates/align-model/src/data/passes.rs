//! A stream of records that never ends: one pass over the files after another.

use std::num::NonZeroUsize;

use super::{
    DataError, DatasetConfig, Located, Record, RecordStream, ShuffleWindow, SkippedRows, order::pass_rng,
    stream,
};

/// Records of a data set that need not fit into memory, pass after pass, each shuffled anew in a window.
///
/// The records are a function of data, configuration, window and seed alone: whoever has taken `n` of them resumes by
/// building the same stream and skipping `n`.
///
/// ```
/// use std::num::NonZeroUsize;
/// use align_model::data::{Batched, Passes, SftRecord};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("train.jsonl");
/// # std::fs::write(&path, "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n")?;
/// # let path = path.to_str().expect("a temporary path is text");
/// let window = NonZeroUsize::new(1000).expect("1000 is not 0");
/// let mut records = Passes::<SftRecord>::new(path.into(), window, 42)?;
/// records.skip_records(2)?;
/// let batch = Batched::new(records, NonZeroUsize::new(4).expect("4 is not 0")).next().transpose()?;
/// assert_eq!(batch.map(|records| records.len()), Some(4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Passes<R> {
    config: DatasetConfig,
    window: NonZeroUsize,
    seed: u64,
    pass: u64,
    records: Option<ShuffleWindow<RecordStream<R>, Located<R>>>,
    taken: u64,
    skipped: Option<SkippedRows>,
}

impl<R: Record> Passes<R> {
    /// Opens the data set. A window of 1 keeps the order of the files.
    ///
    /// # Errors
    /// If the configuration contradicts itself or names no file. What is wrong inside a file comes as an item.
    pub fn new(config: DatasetConfig, window: NonZeroUsize, seed: u64) -> Result<Self, DataError> {
        let mut passes = Self { config, window, seed, pass: 0, records: None, taken: 0, skipped: None };
        passes.records = Some(passes.open()?);
        Ok(passes)
    }

    /// How many records came so far, skipped ones included.
    #[must_use]
    pub fn records_taken(&self) -> u64 {
        self.taken
    }

    /// The pass that is under way; the first is 0.
    #[must_use]
    pub fn pass(&self) -> u64 {
        self.pass
    }

    /// The bad rows that the first pass left out; known when it is over.
    #[must_use]
    pub fn skipped_rows(&self) -> Option<&SkippedRows> {
        self.skipped.as_ref()
    }

    /// Passes over the next `count` records. They are read, because only reading tells how many there are.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn skip_records(&mut self, count: u64) -> Result<(), DataError> {
        for _ in 0..count {
            self.next().transpose()?;
        }
        Ok(())
    }

    fn open(&self) -> Result<ShuffleWindow<RecordStream<R>, Located<R>>, DataError> {
        let records = stream::open(&self.config, self.pass)?;
        Ok(ShuffleWindow::new(records, self.window, pass_rng(self.seed, self.pass)))
    }
}

impl<R: Record> Iterator for Passes<R> {
    type Item = Result<Located<R>, DataError>;

    /// The next record; nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.as_mut()?.next() {
                Some(Ok(record)) => {
                    self.taken += 1;
                    return Some(Ok(record));
                }
                Some(Err(error)) => {
                    self.records = None;
                    return Some(Err(error));
                }
                // Every source has at least one record, or an error has said that it has none: this ends.
                None => {
                    let over = self.records.take()?;
                    if self.pass == 0 {
                        self.skipped = Some(over.into_inner().into_skipped());
                    }
                    self.pass += 1;
                    match self.open() {
                        Ok(records) => self.records = Some(records),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }
}

/// Items of a stream in batches of one size; the last may be smaller.
#[derive(Debug, Clone)]
pub struct Batched<I> {
    items: I,
    size: NonZeroUsize,
}

impl<I> Batched<I> {
    /// Batches of `size` items.
    #[must_use]
    pub fn new(items: I, size: NonZeroUsize) -> Self {
        Self { items, size }
    }
}

impl<I: Iterator<Item = Result<T, E>>, T, E> Iterator for Batched<I> {
    type Item = Result<Vec<T>, E>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.items.by_ref().take(self.size.get()).collect::<Result<Vec<T>, E>>() {
            Ok(batch) if batch.is_empty() => None,
            batch => Some(batch),
        }
    }
}
