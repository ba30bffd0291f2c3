//! `loss_grpo`, `loss_rloo`, `loss_ppo`: policy objectives on given log-probabilities, advantages, returns.

mod critic;
mod group;
mod leave_one_out;

use align_rl::loss::{AdvantageEstimator, ScoredGroups};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use super::{
    Check, Covered, GoldenFile, Tolerance,
    file::{flat, number},
};

const LOSS: Tolerance = Tolerance::Mixed { relative: 1e-5, absolute: 1e-6 };
const GRADIENT: Tolerance = Tolerance::OfLargest(1e-5);
const HOST: Tolerance = Tolerance::Mixed { relative: 1e-6, absolute: 1e-6 };
const METRIC: Tolerance = Tolerance::Mixed { relative: 1e-5, absolute: 1e-6 };

pub(super) fn covers(file: &GoldenFile) -> bool {
    ["loss_grpo", "loss_rloo", "loss_ppo"].iter().any(|prefix| file.name.starts_with(prefix))
}

pub(super) fn run(file: &GoldenFile, check: &mut Check) -> Covered {
    match file.name.as_str() {
        name if name.starts_with("loss_grpo") => group::run(file, check),
        name if name.starts_with("loss_rloo") => leave_one_out::run(file, check),
        _ => critic::run(file, check),
    }
}

/// Which entries of padded rows are tokens, and how many each row has.
struct Packing {
    is_token: Vec<bool>,
    counts: Vec<usize>,
}

impl Packing {
    fn new(mask: &Value) -> Self {
        let rows = mask.as_array().unwrap().iter().map(flat);
        let counts = rows.map(|row| row.iter().filter(|&&m| m != 0.0).count()).collect();
        Self { is_token: flat(mask).into_iter().map(|m| m != 0.0).collect(), counts }
    }

    fn tokens(&self) -> usize {
        self.counts.iter().sum()
    }

    /// What stands at tokens.
    fn pack(&self, rows: &Value) -> Vec<f64> {
        flat(rows)
            .into_iter()
            .zip(&self.is_token)
            .filter(|(_, is_token)| **is_token)
            .map(|(x, _)| x)
            .collect()
    }

    /// One number a row, or one an entry, as one a token.
    fn spread(&self, values: &Value) -> Vec<f64> {
        let given = flat(values);
        if given.len() != self.counts.len() {
            return self.pack(values);
        }
        self.counts.iter().zip(given).flat_map(|(&count, value)| vec![value; count]).collect()
    }

    /// Tokens at their places among zeros.
    fn unpack(&self, tokens: &[f64]) -> Vec<f64> {
        let mut tokens = tokens.iter();
        self.is_token.iter().map(|is_token| if *is_token { *tokens.next().unwrap() } else { 0.0 }).collect()
    }

    /// Each row's tokens.
    fn rows<'a>(&self, mut tokens: &'a [f64]) -> Vec<&'a [f64]> {
        let cut = self.counts.iter().map(|&count| {
            let (own, rest) = tokens.split_at(count);
            tokens = rest;
            own
        });
        cut.collect()
    }
}

fn tensor(values: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn host(values: &Tensor<1>) -> Vec<f64> {
    values.clone().into_data().iter::<f64>().collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// TRL's metrics of clipped ratios. Where a sequence has one ratio, sequences count, not tokens.
fn check_clip_ratios(check: &mut Check, what: &str, metrics: &Value, packing: &Packing, clips: Clips<'_>) {
    let Clips { low, high, is_of_sequences } = clips;
    let of_rows = |flags: &[f64]| -> Vec<f64> { packing.rows(flags).into_iter().map(mean).collect() };
    let both: Vec<f64> = low.iter().zip(high).map(|(low, high)| low + high).collect();
    let overall = |flags: &[f64]| if is_of_sequences { mean(&of_rows(flags)) } else { mean(flags) };
    let least = of_rows(low).into_iter().fold(f64::INFINITY, f64::min);
    let greatest = of_rows(high).into_iter().fold(f64::NEG_INFINITY, f64::max);
    for (name, value) in [
        ("low_mean", overall(low)),
        ("high_mean", overall(high)),
        ("region_mean", overall(&both)),
        ("low_min", least),
        ("high_max", greatest),
    ] {
        if let Some(expected) = metrics.get(format!("clip_ratio/{name}")) {
            check.close_scalar(&format!("{what} clip_ratio/{name}"), value, number(expected), METRIC);
        }
    }
}

/// 1 where a ratio is clipped, token by token.
#[derive(Clone, Copy)]
struct Clips<'a> {
    low: &'a [f64],
    high: &'a [f64],
    is_of_sequences: bool,
}

/// Advantages of rewards in groups of `num_generations` neighbours.
fn check_advantages(
    check: &mut Check,
    expected: &Value,
    estimator: AdvantageEstimator,
    packing: Option<&Packing>,
    token_rewards: Option<&[f64]>,
) {
    let rows = expected["rewards_per_func"].as_array().unwrap();
    let rewards: Vec<Vec<Option<f64>>> = rows
        .iter()
        .map(|row| flat(row).into_iter().map(|r| Some(r).filter(|r| !r.is_nan())).collect())
        .collect();
    let size = expected["num_generations"].as_u64().unwrap();
    let groups: Vec<u64> = (0..rows.len() as u64).map(|index| index / size).collect();
    let ones = vec![1; rows.len()];
    let scored = ScoredGroups {
        rewards: &rewards,
        weights: &flat(&expected["weights"]),
        groups: &groups,
        counts: packing.map_or(&ones, |packing| &packing.counts),
        token_rewards,
        greedy_scores: None,
    };
    let advantages = estimator.advantages(&scored).sequences;
    check.close(&format!("{estimator:?} advantages"), &advantages, &flat(&expected["advantages"]), HOST);
}
