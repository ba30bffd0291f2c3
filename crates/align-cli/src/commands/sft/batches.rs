//! The batches of a run, from memory or from a stream.

use std::sync::Arc;

use align_model::{
    data::ShuffledBatches,
    sft::{SftConfig, SftRow, rows},
};

use super::{
    data::{Place, SftData, some},
    stream::{StreamError, StreamPosition, StreamedBatches},
};

/// The rows of one step, or why there are none.
#[derive(Debug)]
pub(super) struct SftBatch {
    pub(super) rows: Result<Vec<SftRow>, Arc<StreamError>>,
    pub(super) origin: Origin,
}

/// Where the rows of a batch come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Samples in memory.
    Samples(Vec<Place>),
    /// Packed rows, by their indices.
    Packed(Vec<usize>),
    /// Samples of a stream, and how far it has been read with them.
    Stream(Vec<Place>, StreamPosition),
}

impl SftBatch {
    /// Where its rows stand.
    pub(super) fn described(&self) -> String {
        match &self.origin {
            _ if self.rows.is_err() => "a batch that cannot be read".into(),
            Origin::Samples(places) | Origin::Stream(places, _) => some(places),
            Origin::Packed(indices) => format!("packed rows {indices:?}"),
        }
    }
}

/// Rows in memory.
#[derive(Debug)]
pub(super) struct SftRows {
    pub(super) rows: Vec<SftRow>,
    /// Where each row stands; nothing where rows are packed.
    places: Vec<Place>,
}

impl SftRows {
    /// The rows of these data.
    pub(super) fn new(data: &SftData, config: &SftConfig) -> Self {
        let places = if config.packing.is_none() { data.places.clone() } else { Vec::new() };
        Self { rows: rows(data.examples.clone(), config), places }
    }

    /// Batch after batch, without end.
    pub(super) fn batches(&self, config: &SftConfig) -> RowBatches<'_> {
        let order = ShuffledBatches::new(self.rows.len(), config.batch_size.get(), config.seed);
        RowBatches { rows: self, order }
    }
}

/// Batches of rows in memory.
#[derive(Debug)]
pub(super) struct RowBatches<'a> {
    rows: &'a SftRows,
    order: ShuffledBatches,
}

impl Iterator for RowBatches<'_> {
    type Item = SftBatch;

    fn next(&mut self) -> Option<SftBatch> {
        self.nth(0)
    }

    fn nth(&mut self, n: usize) -> Option<SftBatch> {
        let indices = self.order.nth(n)?;
        let SftRows { rows, places } = self.rows;
        let batch = indices.iter().map(|&index| rows[index].clone()).collect();
        let origin = if places.is_empty() {
            Origin::Packed(indices)
        } else {
            Origin::Samples(indices.into_iter().map(|index| places[index].clone()).collect())
        };
        Some(SftBatch { rows: Ok(batch), origin })
    }
}

/// The batches of a run, without end.
#[derive(Debug)]
pub(super) enum SftBatches<'a> {
    /// Of rows in memory.
    InMemory(RowBatches<'a>),
    /// Of a stream.
    Streamed(Box<StreamedBatches<'a>>),
}

impl Iterator for SftBatches<'_> {
    type Item = SftBatch;

    fn next(&mut self) -> Option<SftBatch> {
        match self {
            Self::InMemory(batches) => batches.next(),
            Self::Streamed(batches) => batches.next(),
        }
    }

    fn nth(&mut self, n: usize) -> Option<SftBatch> {
        match self {
            Self::InMemory(batches) => batches.nth(n),
            Self::Streamed(batches) => batches.nth(n),
        }
    }
}
