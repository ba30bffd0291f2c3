//! Demonstrations that need not fit into memory: read, tokenised and batched while the run lasts.

use std::{cell::Cell, error::Error, fmt, num::NonZeroUsize, rc::Rc, sync::Arc};

use align_model::{
    data::{DataError, DatasetConfig, Passes, SftRecord},
    sft::{SftConfig, SftDataError, SftExample, SftTokenizer},
};
use serde::{Deserialize, Serialize};

use super::{
    batches::{Origin, SftBatch},
    data::Place,
};

/// A data set that is streamed.
#[derive(Debug)]
pub(super) struct SftStream {
    /// The files, all of them on this machine.
    pub(super) files: DatasetConfig,
    /// Records that are held in memory.
    pub(super) window: NonZeroUsize,
}

/// How far a stream has been read, and what became of its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamPosition {
    batches: u64,
    records: u64,
    /// Passes that are over.
    passes: u64,
    truncated: u64,
    without_loss: u64,
    uneven_boundaries: u64,
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records read in {} whole passes and a part of one", self.records, self.passes)?;
        let counts = [
            (self.truncated, "samples were longer than sft.max_length and cut"),
            (self.without_loss, "had no token to learn and were left out"),
            (self.uneven_boundaries, "prompts ended inside a token of the whole sample"),
        ];
        counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, what)| write!(f, "; {count} {what}"))
    }
}

/// How far a run has come in its stream: the trainer keeps it in checkpoints, the stream goes on from it.
pub(super) type SharedPosition = Rc<Cell<StreamPosition>>;

/// Why a stream ends.
#[derive(Debug)]
pub(super) enum StreamError {
    /// A record cannot be read.
    Read(DataError),
    /// A record cannot become a sample.
    Prepare(SftDataError),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(_) => f.write_str("cannot read on in the data"),
            Self::Prepare(_) => f.write_str("cannot prepare the data"),
        }
    }
}

impl Error for StreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Prepare(error) => Some(error),
        }
    }
}

/// Batches of a stream, all of one size: a batch may reach from one pass into the next.
#[derive(Debug)]
pub(super) struct StreamedBatches<'a> {
    records: Passes<SftRecord>,
    tokenizer: SftTokenizer<'a>,
    batch_size: usize,
    /// How far it has been read.
    read: StreamPosition,
    /// How far the run has come.
    reached: SharedPosition,
    failed: Option<Arc<StreamError>>,
}

impl<'a> StreamedBatches<'a> {
    /// The batches of a data set, from its beginning.
    pub(super) fn new(
        stream: &SftStream,
        config: &SftConfig,
        tokenizer: SftTokenizer<'a>,
        reached: SharedPosition,
    ) -> Result<Self, DataError> {
        let records = Passes::new(stream.files.clone(), stream.window, config.seed)?;
        let (read, batch_size) = (StreamPosition::default(), config.batch_size.get());
        Ok(Self { records, tokenizer, batch_size, read, reached, failed: None })
    }

    /// What came of the records so far.
    pub(super) fn summary(&self) -> String {
        let skipped = self.records.skipped_rows().map_or(0, |skipped| skipped.count);
        let remark = match skipped {
            0 => String::new(),
            count => format!("; {count} rows of each pass could not be read and were left out"),
        };
        format!("{}{remark}", self.reached.get())
    }

    /// The next sample that has something to learn.
    fn sample(&mut self) -> Result<Option<(Place, SftExample)>, StreamError> {
        while let Some(record) = self.records.next().transpose().map_err(StreamError::Read)? {
            let outcome = self.tokenizer.sample(&record).map_err(StreamError::Prepare)?;
            self.read.truncated += u64::from(outcome.is_truncated);
            self.read.uneven_boundaries += u64::from(outcome.is_uneven);
            match outcome.example {
                Some(example) => return Ok(Some((Place::of(&record), example))),
                None => self.read.without_loss += 1,
            }
        }
        Ok(None)
    }

    fn batch(&mut self) -> Result<Option<SftBatch>, StreamError> {
        let (mut places, mut rows) = (Vec::new(), Vec::new());
        while rows.len() < self.batch_size {
            let Some((place, example)) = self.sample()? else { return Ok(None) };
            places.push(place);
            rows.push(example.into());
        }
        self.read.batches += 1;
        self.read.records = self.records.records_taken();
        self.read.passes = self.records.pass();
        Ok(Some(SftBatch { rows: Ok(rows), origin: Origin::Stream(places, self.read) }))
    }

    fn broken(&mut self, error: StreamError) -> SftBatch {
        let error = self.failed.insert(Arc::new(error)).clone();
        SftBatch { rows: Err(error), origin: Origin::Stream(Vec::new(), self.read) }
    }

    /// Passes over what a resumed run has learnt: its records are read again, but not tokenised.
    fn skip_to(&mut self, position: StreamPosition) -> SftBatch {
        if let Err(error) = self.records.skip_records(position.records) {
            return self.broken(StreamError::Read(error));
        }
        self.read = position;
        SftBatch { rows: Ok(Vec::new()), origin: Origin::Stream(Vec::new(), position) }
    }
}

impl Iterator for StreamedBatches<'_> {
    type Item = SftBatch;

    /// The next batch; after one that cannot be read comes only that.
    fn next(&mut self) -> Option<SftBatch> {
        if let Some(error) = &self.failed {
            let origin = Origin::Stream(Vec::new(), self.read);
            return Some(SftBatch { rows: Err(error.clone()), origin });
        }
        self.batch().unwrap_or_else(|error| Some(self.broken(error)))
    }

    /// If the batch is the last that a resumed run has learnt, it comes without its rows: nobody learns them again.
    fn nth(&mut self, n: usize) -> Option<SftBatch> {
        let reached = self.reached.get();
        if self.read.batches == 0 && reached.batches == n as u64 + 1 {
            return Some(self.skip_to(reached));
        }
        for _ in 0..n {
            self.next()?;
        }
        self.next()
    }
}
