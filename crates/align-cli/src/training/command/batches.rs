//! The batches of a run, from memory or from a stream.

use std::borrow::Borrow;

use align_model::data::ShuffledBatches;

use super::{
    data::{Place, TrainingData, some},
    stream::{StreamedBatches, Unreadable},
};
use crate::method::{Method, Settings as _};

/// The rows of one step.
#[derive(Debug)]
pub(super) struct Batch<R> {
    pub(super) rows: Vec<R>,
    pub(super) origin: Origin,
}

/// Where the rows of a batch come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Samples, from here.
    Samples(Vec<Place>),
    /// Packed rows, by their indices.
    Packed(Vec<usize>),
}

impl<R> Batch<R> {
    /// Where its rows stand.
    pub(super) fn described(&self) -> String {
        match &self.origin {
            Origin::Samples(places) => some(places),
            Origin::Packed(indices) => format!("packed rows {indices:?}"),
        }
    }
}

impl<R> Borrow<[R]> for Batch<R> {
    fn borrow(&self) -> &[R] {
        &self.rows
    }
}

/// Rows in memory.
#[derive(Debug)]
pub(super) struct Rows<R> {
    pub(super) rows: Vec<R>,
    /// Where each row stands; nothing where rows are packed.
    places: Vec<Place>,
}

impl<R: Clone> Rows<R> {
    /// The rows of these data.
    pub(super) fn new<M: Method<Row = R>>(data: &TrainingData<M::Example>, config: &M::Config) -> Self {
        let places = if config.plan().packing.is_none() { data.places.clone() } else { Vec::new() };
        Self { rows: M::rows(config, &data.examples), places }
    }

    /// The order in which they are seen.
    pub(super) fn order(&self, batch_size: usize, seed: u64) -> ShuffledBatches {
        ShuffledBatches::new(self.rows.len(), batch_size, seed)
    }

    /// Batch after batch, without end.
    pub(super) fn batches(&self, batch_size: usize, seed: u64) -> RowBatches<'_, R> {
        RowBatches { rows: self, order: self.order(batch_size, seed) }
    }
}

/// Batches of rows in memory.
#[derive(Debug)]
pub(super) struct RowBatches<'a, R> {
    rows: &'a Rows<R>,
    order: ShuffledBatches,
}

impl<R: Clone> Iterator for RowBatches<'_, R> {
    type Item = Batch<R>;

    fn next(&mut self) -> Option<Batch<R>> {
        self.nth(0)
    }

    fn nth(&mut self, n: usize) -> Option<Batch<R>> {
        let indices = self.order.nth(n)?;
        let Rows { rows, places } = self.rows;
        let batch = indices.iter().map(|&index| rows[index].clone()).collect();
        let origin = if places.is_empty() {
            Origin::Packed(indices)
        } else {
            Origin::Samples(indices.into_iter().map(|index| places[index].clone()).collect())
        };
        Some(Batch { rows: batch, origin })
    }
}

/// The batches of a run, without end.
pub(super) enum Batches<'a, M: Method> {
    /// Of rows in memory.
    InMemory(RowBatches<'a, M::Row>),
    /// Of a stream.
    Streamed(Box<StreamedBatches<'a, M>>),
}

impl<M: Method> Iterator for Batches<'_, M> {
    type Item = Result<Batch<M::Row>, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::InMemory(batches) => batches.next().map(Ok),
            Self::Streamed(batches) => batches.next(),
        }
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        match self {
            Self::InMemory(batches) => batches.nth(n).map(Ok),
            Self::Streamed(batches) => batches.nth(n),
        }
    }
}
