//! Padded rows of a golden file, without their padding.

use align_model::logprob::TokenLogProbs;
use burn::tensor::Device;
use serde_json::Value;

use super::{flat, leaf, vector};
use crate::golden_runner::file::rows;

/// Which positions of padded rows belong to a completion.
#[derive(Debug)]
pub(super) struct Completions {
    /// Row by row, aligned with the tokens that are predicted.
    selected: Vec<bool>,
    pub(super) lengths: Vec<usize>,
}

impl Completions {
    /// Of a mask that is aligned with the tokens themselves, of which the first is never predicted.
    pub(super) fn new(mask: &Value) -> Self {
        let rows: Vec<Vec<bool>> =
            rows(mask).iter().map(|row| row[1..].iter().map(|&m| m != 0).collect()).collect();
        let lengths = rows.iter().map(|row| row.iter().filter(|&&m| m).count()).collect();
        Self { selected: rows.concat(), lengths }
    }

    /// The values at the completions, sequence after sequence.
    pub(super) fn pick(&self, values: &Value) -> Vec<f64> {
        let values = flat(values);
        assert_eq!(values.len(), self.selected.len(), "one value for each position");
        values.into_iter().zip(&self.selected).filter_map(|(value, &here)| here.then_some(value)).collect()
    }

    /// Log-probabilities as constants.
    pub(super) fn constants(&self, values: &Value, device: &Device) -> TokenLogProbs {
        TokenLogProbs { values: vector(&self.pick(values), device), counts: self.lengths.clone() }
    }

    /// Log-probabilities whose gradients are asked for.
    pub(super) fn leaves(&self, values: &Value, device: &Device) -> TokenLogProbs {
        TokenLogProbs { values: leaf(&self.pick(values), device), counts: self.lengths.clone() }
    }
}
