//! Keys and values of the tokens so far.

use burn::tensor::{Device, Tensor};

use crate::causal_lm::{Cache, TokenBatch, index_tensor};

/// Keys and values of a batch of sequences of unequal lengths.
///
/// Rows are aligned at their newest token, so that appending writes one column for all of them. What stands before a
/// shorter row's start is hidden.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    /// The first column of each row that holds a token.
    starts: Vec<usize>,
    /// Columns in use.
    length: usize,
    device: Device,
}

/// One layer's keys and values, each `[rows, kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone)]
pub(super) struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

/// Where the tokens of a batch go in a cache whose rows end together.
#[derive(Debug)]
pub(super) struct Alignment {
    /// Token index of each cache cell, row by row; the cells before a row's start repeat token 0 and are hidden.
    cells: Vec<usize>,
    rows: usize,
    columns: usize,
    starts: Vec<usize>,
}

impl Alignment {
    pub(super) fn new(batch: &TokenBatch) -> Self {
        let columns = batch.lengths().iter().copied().max().unwrap_or(0);
        let mut cells = Vec::with_capacity(columns * batch.sequences());
        for (first, &length) in batch.starts().into_iter().zip(batch.lengths()) {
            cells.extend(std::iter::repeat_n(0, columns - length));
            cells.extend(first..first + length);
        }
        let starts = batch.lengths().iter().map(|length| columns - length).collect();
        Self { cells, rows: batch.sequences(), columns, starts }
    }

    /// `[tokens, kv_heads, head_dim]` → `[rows, kv_heads, columns, head_dim]`.
    fn align(&self, x: Tensor<3>) -> Tensor<4> {
        let [tokens, heads, width] = x.dims();
        let cells = if tokens == self.cells.len() {
            x
        } else {
            let device = x.device();
            x.select(0, index_tensor(self.cells.iter().copied(), &device))
        };
        cells.reshape([self.rows, self.columns, heads, width]).swap_dims(1, 2)
    }

    pub(super) fn layer(&self, key: Tensor<3>, value: Tensor<3>) -> LayerCache {
        LayerCache { keys: self.align(key), values: self.align(value) }
    }

    pub(super) fn into_cache(self, layers: Vec<LayerCache>, device: Device) -> KvCache {
        KvCache { layers, starts: self.starts, length: self.columns, device }
    }
}

impl KvCache {
    /// The position of the next token of each row.
    pub(super) fn next_positions(&self) -> Vec<u32> {
        self.starts.iter().map(|start| (self.length - start) as u32).collect()
    }

    /// Hands the layers out for appending; they come back through [`put_back`](Self::put_back).
    ///
    /// Moving them, instead of borrowing, leaves each tensor with one owner, so a column is written in place.
    pub(super) fn take_layers(&mut self) -> Vec<LayerCache> {
        std::mem::take(&mut self.layers)
    }

    pub(super) fn put_back(&mut self, layers: Vec<LayerCache>) {
        self.layers = layers;
        self.length += 1;
    }

    /// The column that the next token is written to.
    pub(super) fn column(&self) -> usize {
        self.length
    }

    /// First visible column of each row, counted from `oldest`.
    pub(super) fn starts_from(&self, oldest: usize) -> Vec<usize> {
        self.starts.iter().map(|start| start.saturating_sub(oldest)).collect()
    }

    /// Drops the columns that no remaining row uses.
    fn trim(&mut self) {
        let unused = self.starts.iter().copied().min().unwrap_or(0);
        if unused == 0 {
            return;
        }
        for layer in &mut self.layers {
            let capacity = layer.keys.dims()[2];
            layer.keys = layer.keys.clone().narrow(2, unused, capacity - unused);
            layer.values = layer.values.clone().narrow(2, unused, capacity - unused);
        }
        self.starts.iter_mut().for_each(|start| *start -= unused);
        self.length -= unused;
    }
}

impl Cache for KvCache {
    fn select(&mut self, rows: &[usize]) {
        if rows.iter().copied().eq(0..self.starts.len()) {
            return;
        }
        for layer in &mut self.layers {
            let index = index_tensor(rows.iter().copied(), &self.device);
            layer.keys = layer.keys.clone().select(0, index.clone());
            layer.values = layer.values.clone().select(0, index);
        }
        self.starts = rows.iter().map(|&row| self.starts[row]).collect();
        self.trim();
    }

    fn rows(&self) -> usize {
        self.starts.len()
    }
}

impl LayerCache {
    /// Writes one token a row into `column`. `key`, `value`: `[rows, kv_heads, head_dim]`.
    pub(super) fn append(self, key: Tensor<3>, value: Tensor<3>, column: usize) -> Self {
        Self { keys: write(self.keys, key, column), values: write(self.values, value, column) }
    }

    /// Keys and values of columns `oldest … end`.
    pub(super) fn columns(&self, oldest: usize, end: usize) -> (Tensor<4>, Tensor<4>) {
        let cut = |x: &Tensor<4>| x.clone().narrow(2, oldest, end - oldest);
        (cut(&self.keys), cut(&self.values))
    }
}

fn write(cells: Tensor<4>, new: Tensor<3>, column: usize) -> Tensor<4> {
    let [rows, heads, capacity, width] = cells.dims();
    let cells = if column < capacity {
        cells
    } else {
        // Half as much again: few copies, little waste.
        let room = Tensor::zeros([rows, heads, 32 + capacity / 2, width], (&cells.device(), cells.dtype()));
        Tensor::cat(vec![cells, room], 2)
    };
    cells.slice_assign([0..rows, 0..heads, column..column + 1, 0..width], new.unsqueeze_dim(2))
}
