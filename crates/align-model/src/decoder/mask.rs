//! Which keys a query sees, cut into blocks of queries so that no score matrix is larger than it needs to be.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

/// Added to the score of a hidden key. Finite, because `−∞ − (−∞)` is NaN, and far below any score.
const HIDDEN: f32 = -1e9;

/// Queries of one block. Longer sequences are cut: later keys are skipped instead of computed and hidden.
const BLOCK: usize = 256;

/// Consecutive sequences of equal length, which attention takes as one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Index of the first token.
    pub(super) start: usize,
    pub(super) sequences: usize,
    pub(super) length: usize,
}

/// Queries `queries.0 … queries.1` of each sequence of a run and the keys that any of them sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) queries: (usize, usize),
    pub(super) keys: (usize, usize),
}

/// What decides a block's mask: rows, columns, the first query's column, the window.
type Shape = (usize, usize, usize, Option<usize>);

/// The attention pattern of one batch, shared by all layers.
#[derive(Debug)]
pub(super) struct AttentionPlan {
    pub(super) runs: Vec<Run>,
    masks: HashMap<Shape, Tensor<4>>,
}

impl AttentionPlan {
    /// Plans causal attention inside each sequence, for layers with these windows.
    pub(super) fn new(lengths: &[usize], windows: &[Option<usize>], device: &Device) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0;
        for &length in lengths {
            match runs.last_mut() {
                Some(run) if run.length == length => run.sequences += 1,
                _ => runs.push(Run { start, sequences: 1, length }),
            }
            start += length;
        }
        let mut masks = HashMap::new();
        for &window in windows {
            for block in runs.iter().flat_map(|run| blocks(run.length, window)) {
                let shape = mask_shape(block, window);
                if needs_mask(shape) {
                    masks.entry(shape).or_insert_with(|| mask(shape, device));
                }
            }
        }
        Self { runs, masks }
    }

    /// What is added to a block's scores, `[1, 1, queries, keys]`; `None` where every query sees every key.
    pub(super) fn mask(&self, block: Block, window: Option<usize>) -> Option<Tensor<4>> {
        self.masks.get(&mask_shape(block, window)).cloned()
    }
}

/// Cuts a sequence into blocks of queries.
pub(super) fn blocks(length: usize, window: Option<usize>) -> impl Iterator<Item = Block> {
    (0..length).step_by(BLOCK).map(move |first| {
        let end = (first + BLOCK).min(length);
        let oldest = window.map_or(0, |w| (first + 1).saturating_sub(w));
        Block { queries: (first, end), keys: (oldest, end) }
    })
}

/// Scores that one head computes, hidden ones included.
pub(crate) fn attention_cells(lengths: &[usize], window: Option<usize>) -> usize {
    let cells = |block: Block| (block.queries.1 - block.queries.0) * (block.keys.1 - block.keys.0);
    lengths.iter().flat_map(|&length| blocks(length, window)).map(cells).sum()
}

fn mask_shape(block: Block, window: Option<usize>) -> Shape {
    let (queries, keys) = (block.queries.1 - block.queries.0, block.keys.1 - block.keys.0);
    // A window that reaches past the oldest key hides nothing.
    (queries, keys, block.queries.0 - block.keys.0, window.filter(|&w| w < keys))
}

fn needs_mask((queries, ..): Shape) -> bool {
    queries > 1
}

fn mask((queries, keys, offset, window): Shape, device: &Device) -> Tensor<4> {
    let window = window.unwrap_or(usize::MAX);
    let mut values = Vec::with_capacity(queries * keys);
    for query in offset..offset + queries {
        values.extend((0..keys).map(|key| if key <= query && query - key < window { 0.0 } else { HIDDEN }));
    }
    Tensor::from_data(TensorData::new(values, [1, 1, queries, keys]), device)
}

/// Hides the columns before each row's start. Shape `[rows, 1, 1, columns]`; `None` where nothing is hidden.
pub(super) fn start_mask(starts: &[usize], columns: usize, device: &Device) -> Option<Tensor<4>> {
    if starts.iter().all(|&start| start == 0) {
        return None;
    }
    let mut values = Vec::with_capacity(starts.len() * columns);
    for &start in starts {
        values.extend((0..columns).map(|column| if column < start { HIDDEN } else { 0.0 }));
    }
    Some(Tensor::from_data(TensorData::new(values, [starts.len(), 1, 1, columns]), device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_form_a_run() {
        let plan = AttentionPlan::new(&[3, 3, 5], &[None], &Device::flex());
        let expected = [Run { start: 0, sequences: 2, length: 3 }, Run { start: 6, sequences: 1, length: 5 }];
        assert_eq!(plan.runs, expected);
    }

    #[test]
    fn blocks_cover_every_visible_pair_once() {
        for (length, window) in
            [(1, None), (256, None), (700, None), (700, Some(8)), (700, Some(300)), (20, Some(1))]
        {
            let mut seen = vec![0u8; length * length];
            for block in blocks(length, window) {
                for i in block.queries.0..block.queries.1 {
                    for j in block.keys.0..block.keys.1 {
                        if j <= i && i - j < window.unwrap_or(usize::MAX) {
                            seen[i * length + j] += 1;
                        }
                    }
                }
            }
            for i in 0..length {
                for j in 0..length {
                    let visible = j <= i && i - j < window.unwrap_or(usize::MAX);
                    assert_eq!(seen[i * length + j], u8::from(visible), "{length} {window:?} {i} {j}");
                }
            }
        }
    }
}
