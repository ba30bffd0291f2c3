//! Which keys a query sees, cut into blocks of queries so that no score matrix is larger than it needs to be.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::causal_lm::TokenBatch;

/// Added to the score of a hidden key. Finite, because `−∞ − (−∞)` is NaN, and far below any score.
const HIDDEN: f32 = -1e9;

/// Queries of one block. Longer sequences are cut: later keys are skipped instead of computed and hidden.
const BLOCK: usize = 256;

/// Consecutive segments of equal length after the same prompt, which attention takes as one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) tokens: Tokens,
    /// The prompt that each of them continues.
    prompt: Option<Tokens>,
}

/// Tokens of a batch: segments of equal length, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Index of the first token.
    pub(super) start: usize,
    pub(super) segments: usize,
    pub(super) length: usize,
}

impl Run {
    /// The end of the prompt that the run's first queries still see: as far as the window reaches.
    pub(super) fn before(self, window: Option<usize>) -> Option<Tokens> {
        let prompt = self.prompt?;
        let length = reach(prompt.length, window);
        (length > 0).then(|| Tokens { start: prompt.start + prompt.length - length, length, ..prompt })
    }

    /// Cuts the queries into blocks.
    pub(super) fn blocks(self, window: Option<usize>) -> impl Iterator<Item = Block> {
        blocks(self.before(window).map_or(0, |before| before.length), self.tokens.length, window)
    }
}

/// Queries `queries.0 … queries.1` of each segment of a run and the keys that any of them sees; keys are counted from the
/// first of the prompt's that is [seen](Run::before).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) queries: (usize, usize),
    pub(super) keys: (usize, usize),
}

/// What decides a block's mask: rows, columns, the window. The last row is the last column's.
type Shape = (usize, usize, Option<usize>);

/// The attention pattern of one batch, shared by all layers.
#[derive(Debug)]
pub(super) struct AttentionPlan {
    pub(super) runs: Vec<Run>,
    masks: HashMap<Shape, Tensor<4>>,
}

impl AttentionPlan {
    /// Plans causal attention inside each sequence, for layers with these windows.
    pub(super) fn new(batch: &TokenBatch, windows: &[Option<usize>], device: &Device) -> Self {
        let runs = runs(batch);
        let mut masks = HashMap::new();
        for &window in windows {
            for block in runs.iter().flat_map(|run| run.blocks(window)) {
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

fn runs(batch: &TokenBatch) -> Vec<Run> {
    let (starts, lengths) = (batch.starts(), batch.lengths());
    let mut runs: Vec<Run> = Vec::new();
    for ((&start, &length), continues) in starts.iter().zip(lengths).zip(batch.continues()) {
        let one = |start, length| Tokens { start, segments: 1, length };
        let prompt = continues.map(|index| one(starts[index], lengths[index]));
        match runs.last_mut() {
            Some(run) if run.tokens.length == length && run.prompt == prompt => run.tokens.segments += 1,
            _ => runs.push(Run { tokens: one(start, length), prompt }),
        }
    }
    runs
}

/// How much of a prompt the token after it sees.
fn reach(prompt: usize, window: Option<usize>) -> usize {
    window.map_or(prompt, |window| prompt.min(window.saturating_sub(1)))
}

/// Cuts a segment with `before` keys before it into blocks of queries.
fn blocks(before: usize, length: usize, window: Option<usize>) -> impl Iterator<Item = Block> {
    (0..length).step_by(BLOCK).map(move |first| {
        let end = (first + BLOCK).min(length);
        let oldest = window.map_or(0, |w| (before + first + 1).saturating_sub(w));
        Block { queries: (first, end), keys: (oldest, before + end) }
    })
}

/// Scores that one head computes, hidden ones included. `segments`: length of each segment and of the prompt before it.
pub(crate) fn attention_cells(segments: &[(usize, usize)], window: Option<usize>) -> usize {
    let cells = |block: Block| (block.queries.1 - block.queries.0) * (block.keys.1 - block.keys.0);
    let blocks = |&(length, prompt): &(usize, usize)| blocks(reach(prompt, window), length, window);
    segments.iter().flat_map(blocks).map(cells).sum()
}

fn mask_shape(block: Block, window: Option<usize>) -> Shape {
    let (queries, keys) = (block.queries.1 - block.queries.0, block.keys.1 - block.keys.0);
    // A window that reaches past the oldest key hides nothing.
    (queries, keys, window.filter(|&w| w < keys))
}

fn needs_mask((queries, ..): Shape) -> bool {
    queries > 1
}

fn mask((queries, keys, window): Shape, device: &Device) -> Tensor<4> {
    let window = window.unwrap_or(usize::MAX);
    let mut values = Vec::with_capacity(queries * keys);
    for query in keys - queries..keys {
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

    fn tokens(start: usize, segments: usize, length: usize) -> Tokens {
        Tokens { start, segments, length }
    }

    #[test]
    fn equal_neighbours_form_a_run() {
        let batch = TokenBatch::from_sequences(&[&[1u32, 2, 3][..], &[4, 5, 6], &[7, 8]]);
        let plan = AttentionPlan::new(&batch, &[None], &Device::flex());
        let run = |tokens| Run { tokens, prompt: None };
        assert_eq!(plan.runs, [run(tokens(0, 2, 3)), run(tokens(6, 1, 2))]);
    }

    #[test]
    fn equal_continuations_of_one_prompt_form_a_run() {
        let mut batch = TokenBatch::default();
        batch.push_sharing(&[1, 2], &[[3, 4], [5, 6]]);
        batch.push_sharing(&[1, 2], &[[3, 4]]);
        let (first, second) = (tokens(0, 1, 2), tokens(6, 1, 2));
        let expected = [(first, None), (tokens(2, 2, 2), Some(first)), (second, None)];
        let expected = expected.into_iter().chain([(tokens(8, 1, 2), Some(second))]);
        let expected: Vec<_> = expected.map(|(tokens, prompt)| Run { tokens, prompt }).collect();
        assert_eq!(runs(&batch), expected);
    }

    #[test]
    fn only_what_a_window_reaches_of_a_prompt_is_taken() {
        let run = Run { tokens: tokens(10, 2, 3), prompt: Some(tokens(0, 1, 10)) };
        assert_eq!(run.before(None), Some(tokens(0, 1, 10)));
        assert_eq!(run.before(Some(11)), Some(tokens(0, 1, 10)));
        assert_eq!(run.before(Some(4)), Some(tokens(7, 1, 3)));
        assert_eq!(run.before(Some(1)), None);
    }

    #[test]
    fn blocks_cover_every_visible_pair_once() {
        let windows = [None, Some(1), Some(8), Some(300)];
        for (prompt, length) in [(0, 1), (0, 256), (0, 700), (1, 1), (5, 257), (300, 700), (299, 20)] {
            for window in windows {
                let whole = prompt + length;
                let visible = |i: usize, j: usize| j <= i && i - j < window.unwrap_or(usize::MAX);
                let before = reach(prompt, window);
                let mut seen = vec![0u8; whole * whole];
                for block in blocks(before, length, window) {
                    let (rows, columns) = (block.queries.1 - block.queries.0, block.keys.1 - block.keys.0);
                    let values = mask(mask_shape(block, window), &Device::flex());
                    let values: Vec<f32> = values.into_data().iter().collect();
                    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
                        if values[row * columns + column] == 0.0 {
                            let i = prompt + block.queries.0 + row;
                            let j = prompt - before + block.keys.0 + column;
                            seen[i * whole + j] += 1;
                        }
                    }
                }
                for (i, j) in (prompt..whole).flat_map(|i| (0..whole).map(move |j| (i, j))) {
                    let times = u8::from(visible(i, j));
                    assert_eq!(seen[i * whole + j], times, "{prompt} {length} {window:?} {i} {j}");
                }
            }
        }
    }
}
