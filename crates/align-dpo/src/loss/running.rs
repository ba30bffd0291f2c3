//! What losses remember from batch to batch.

use align_model::number::{NonNegative, Positive, PositiveUnit};
use serde::{Deserialize, Serialize};

/// The mean of everything seen so far: δ of BCO, over the rewards of chosen and rejected completions alike.
///
/// TRL updates it with all rewards of a batch before it is used; LLaMA-Factory with one value a batch, their mean, so that
/// small batches count as much as large ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningMean {
    mean: f64,
    count: u64,
}

impl RunningMean {
    /// Takes more values in.
    pub fn update(&mut self, values: &[f64]) {
        if values.is_empty() {
            return;
        }
        let added = values.len() as f64;
        self.count += values.len() as u64;
        self.mean += (values.iter().sum::<f64>() / added - self.mean) * added / self.count as f64;
    }

    /// The mean; 0 before the first value.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// A β that grows with how far a batch's margins are above their usual mean: pairs that are easily told apart hold the
/// policy closer to its reference.
///
/// ```text
/// m̄ ← μ·m̄ + (1 − μ)·mean(m)        β = max(β₀·(1 + a·(mean(m) − m̄)), 0.001)
/// ```
///
/// # Source
/// Wu et al. 2024, *β-DPO*, [arXiv:2407.08639](https://arxiv.org/abs/2407.08639), as in the authors'
/// [trainers.py](https://github.com/junkangwu/beta-DPO/blob/6f3abb8ea8a06fe56a68e409fc91d99e82780dd2/trainers.py), where
/// margins are log-ratios without β; without the paper's filter of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynamicBeta {
    /// β₀.
    pub base: Positive,
    /// `a`: how much β changes per unit of margin.
    pub sensitivity: NonNegative,
    /// μ: how slowly the usual mean moves.
    pub momentum: PositiveUnit,
    /// m̄, which begins at 0.
    #[serde(default)]
    pub usual_margin: f64,
}

impl DynamicBeta {
    /// A β that has seen no batch.
    #[must_use]
    pub fn new(base: Positive, sensitivity: NonNegative, momentum: PositiveUnit) -> Self {
        Self { base, sensitivity, momentum, usual_margin: 0.0 }
    }

    /// The β of a batch with this mean margin, which also moves the usual one.
    pub fn next(&mut self, mean_margin: f64) -> Positive {
        let momentum = self.momentum.get();
        self.usual_margin = momentum * self.usual_margin + (1.0 - momentum) * mean_margin;
        let factor = 1.0 + self.sensitivity.get() * (mean_margin - self.usual_margin);
        Positive::try_from((self.base.get() * factor).max(1e-3)).unwrap_or(self.base)
    }
}

/// How β follows the margins of batches, beside a β₀ that stands elsewhere: the settings of a [`DynamicBeta`]. Unless
/// given, they are those of the authors' example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicBetaConfig {
    /// How much β changes per unit of margin: 0.6 unless given. 0 leaves it as it is.
    pub sensitivity: NonNegative,
    /// How slowly the usual margin moves: 0.9 unless given.
    pub momentum: PositiveUnit,
}

impl DynamicBetaConfig {
    /// A β that has seen no batch.
    #[must_use]
    pub fn around(self, base: Positive) -> DynamicBeta {
        DynamicBeta::new(base, self.sensitivity, self.momentum)
    }
}

impl Default for DynamicBetaConfig {
    fn default() -> Self {
        Self { sensitivity: NonNegative::new(0.6), momentum: PositiveUnit::new(0.9) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_mean_is_that_of_all_values() {
        let mut running = RunningMean::default();
        running.update(&[]);
        assert_eq!(running.count(), 0);
        for values in [&[1.0, 2.0][..], &[6.0], &[-1.0, 0.0, 4.0]] {
            running.update(values);
        }
        assert!((running.mean() - 2.0).abs() < 1e-12);
        let text = serde_json::to_string(&running).unwrap();
        assert_eq!(serde_json::from_str::<RunningMean>(&text).unwrap(), running);
    }

    #[test]
    fn an_easy_batch_has_a_larger_beta() {
        let fresh = DynamicBeta {
            base: Positive::new(0.1),
            sensitivity: NonNegative::new(0.6),
            momentum: PositiveUnit::new(0.9),
            usual_margin: 1.0,
        };
        let mut beta = fresh;
        // m̄ = 0.9·1 + 0.1·2 = 1.1; β = 0.1·(1 + 0.6·(2 − 1.1))
        assert!((beta.next(2.0).get() - 0.154).abs() < 1e-12);
        assert!((beta.usual_margin - 1.1).abs() < 1e-12);
        assert!((fresh.clone().next(-100.0).get() - 1e-3).abs() < 1e-12);
    }
}
