//! Records that need not fit into memory: read, tokenised and batched while the run lasts.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    error::Error,
    fmt,
    num::NonZeroUsize,
    rc::Rc,
};

use align_model::{
    checkpoint::{State, StateError},
    data::{DatasetConfig, Passes},
    train::{Flow, Hook, HookError, StepEvent},
};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    batches::{Batch, Origin},
    data::Place,
};
use crate::method::{Method, Note, Settings, Tokenize};

/// A data set that is streamed.
#[derive(Debug)]
pub(super) struct Stream {
    /// The files, all of them on this machine.
    pub(super) files: DatasetConfig,
    /// Records that are held in memory.
    pub(super) window: NonZeroUsize,
}

/// How far a stream has been read, and what became of its records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamPosition {
    batches: u64,
    records: u64,
    /// Examples of the last record that are in no batch yet.
    left: usize,
    /// Passes that are over.
    passes: u64,
    notes: BTreeMap<Note, u64>,
}

/// How far a run has come in its stream: the batches say so, and as a hook it is kept in checkpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedPosition(Rc<RefCell<StreamPosition>>);

const POSITION: &str = "position";

impl<S, R> Hook<S, R> for SharedPosition {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn after_step(&mut self, _event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        Ok(Flow::Continue)
    }

    fn save(&self, state: &mut State) -> Result<(), StateError> {
        state.insert(POSITION, &*self.0.borrow())
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        *self.0.borrow_mut() = state.take(POSITION)?;
        Ok(())
    }
}

/// A batch that cannot be made of its records.
#[derive(Debug)]
pub(super) struct Unreadable(anyhow::Error);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unreadable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Batches of a stream, all of one size: a batch may reach from one pass into the next.
pub(super) struct StreamedBatches<'a, M: Method> {
    config: &'a M::Config,
    records: Passes<M::Record>,
    tokenize: Tokenize<'a, M>,
    /// Examples of the last record that are in no batch yet.
    left: VecDeque<(Place, M::Example)>,
    /// How far it has been read.
    read: StreamPosition,
    reached: SharedPosition,
}

impl<'a, M: Method> StreamedBatches<'a, M> {
    /// The batches of a data set, from its beginning.
    pub(super) fn new(
        stream: &Stream,
        config: &'a M::Config,
        tokenize: Tokenize<'a, M>,
        reached: SharedPosition,
    ) -> Result<Self> {
        let records = Passes::new(stream.files.clone(), stream.window, config.plan().seed)?;
        let (left, read) = (VecDeque::new(), StreamPosition::default());
        Ok(Self { config, records, tokenize, left, read, reached })
    }

    /// What came of the records so far.
    pub(super) fn summary(&self) -> String {
        let StreamPosition { records, passes, notes, .. } = &*self.reached.0.borrow();
        let mut parts = vec![format!("{records} records read in {passes} whole passes and a part of one")];
        parts.extend(notes.iter().map(|(note, count)| format!("{count} {}", note.said(M::Config::NAME))));
        if let Some(skipped) = self.records.skipped_rows().filter(|skipped| skipped.count > 0) {
            let count = skipped.count;
            parts.push(format!("{count} rows of each pass could not be read and were left out"));
        }
        parts.join("; ")
    }

    /// Takes the examples of the next record.
    fn read_on(&mut self) -> Result<Option<Vec<Note>>> {
        let record = self.records.next().transpose().context("cannot read on in the data")?;
        let Some(record) = record else { return Ok(None) };
        let tokenized = (self.tokenize)(&record)?;
        let place = Place::of(&record);
        self.left.extend(tokenized.examples.into_iter().map(|example| (place.clone(), example)));
        Ok(Some(tokenized.notes))
    }

    fn batch(&mut self) -> Result<Option<Batch<M::Row>>> {
        let batch_size = self.config.plan().batch_size.get();
        let (mut places, mut examples) = (Vec::new(), Vec::new());
        while examples.len() < batch_size {
            if let Some((place, example)) = self.left.pop_front() {
                places.push(place);
                examples.push(example);
                continue;
            }
            let Some(notes) = self.read_on()? else { return Ok(None) };
            for note in notes {
                *self.read.notes.entry(note).or_default() += 1;
            }
        }
        self.read.batches += 1;
        self.read.records = self.records.records_taken();
        self.read.left = self.left.len();
        self.read.passes = self.records.pass();
        self.reached.0.replace(self.read.clone());
        Ok(Some(Batch { rows: M::rows(self.config, &examples), origin: Origin::Samples(places) }))
    }

    /// Passes over what a resumed run has learnt: its records are read again, but not tokenised.
    fn skip_to(&mut self, position: StreamPosition) -> Result<Option<Batch<M::Row>>> {
        let whole = position.records - u64::from(position.left > 0);
        self.records.skip_records(whole).context("cannot read on in the data")?;
        if position.left > 0 {
            self.read_on()?;
            self.left.drain(..self.left.len().saturating_sub(position.left));
        }
        self.read = position;
        Ok(Some(Batch { rows: Vec::new(), origin: Origin::Samples(Vec::new()) }))
    }
}

impl<M: Method> Iterator for StreamedBatches<'_, M> {
    type Item = Result<Batch<M::Row>, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().map_err(Unreadable).transpose()
    }

    /// If the batch is the last that a resumed run has learnt, it comes without its rows: nobody learns them again.
    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        let reached = self.reached.0.borrow().clone();
        if self.read.batches == 0 && reached.batches == n as u64 + 1 {
            return self.skip_to(reached).map_err(Unreadable).transpose();
        }
        for _ in 0..n {
            if let Err(error) = self.next()? {
                return Some(Err(error));
            }
        }
        self.next()
    }
}
