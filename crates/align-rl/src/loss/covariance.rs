//! Tokens whose probability and advantage go together: they are what costs a policy its entropy.
//!
//! # Source
//! Cui et al. 2025, *The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models*,
//! [arXiv:2505.22617](https://arxiv.org/abs/2505.22617), as in the authors' branch of verl:
//! [core_algos.py](https://github.com/volcengine/verl/blob/b178a3cd56f58b2d502255daba591e92833930a7/verl/trainer/ppo/core_algos.py).

use align_model::number::PositiveUnit;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::whiten::Moments;

/// Covariances of tokens that Clip-Cov may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CovarianceRange {
    /// Above this.
    pub low: f64,
    /// Below this.
    pub high: f64,
}

impl Default for CovarianceRange {
    /// 1 to 5, as in the paper.
    fn default() -> Self {
        Self { low: 1.0, high: 5.0 }
    }
}

/// Clip-Cov: 0 for some tokens, drawn by chance, whose covariance is in the range, 1 for the others.
///
/// At most a share of all tokens (2·10⁻⁴ in the paper), and at least one, is left out. The result is what
/// [`PolicyTokens::is_kept`](crate::PolicyTokens::is_kept) takes.
///
/// # Panics
/// If the two differ in length.
#[must_use]
pub fn clip_cov_mask(
    advantages: &[f64],
    log_probs: &[f64],
    range: CovarianceRange,
    share: PositiveUnit,
    rng: &mut impl Rng,
) -> Vec<f32> {
    let covariances = covariances(advantages, log_probs);
    let mut candidates: Vec<usize> = (0..covariances.len())
        .filter(|&t| range.low < covariances[t] && covariances[t] < range.high)
        .collect();
    let drawn = at_most(share, covariances.len()).min(candidates.len());
    let mut mask = vec![1.0; covariances.len()];
    for index in 0..drawn {
        let chosen = rng.random_range(index..candidates.len());
        candidates.swap(index, chosen);
        mask[candidates[index]] = 0.0;
    }
    mask
}

/// KL-Cov: 1 for the share of tokens with the greatest covariance (2·10⁻⁴ in the paper; at least one token), 0 for the others.
///
/// The result is what [`PolicyTokens::is_penalized`](crate::PolicyTokens::is_penalized) takes.
///
/// # Panics
/// If the two differ in length.
#[must_use]
pub fn kl_cov_mask(advantages: &[f64], log_probs: &[f64], share: PositiveUnit) -> Vec<f32> {
    let covariances = covariances(advantages, log_probs);
    let mut order: Vec<usize> = (0..covariances.len()).collect();
    // Stable, so that equal covariances are taken in the tokens' order.
    order.sort_by(|&a, &b| covariances[b].total_cmp(&covariances[a]));
    let mut mask = vec![0.0; covariances.len()];
    for &token in order.iter().take(at_most(share, covariances.len())) {
        mask[token] = 1.0;
    }
    mask
}

fn covariances(advantages: &[f64], log_probs: &[f64]) -> Vec<f64> {
    assert_eq!(advantages.len(), log_probs.len(), "one advantage and one log-probability a token");
    let advantage = Moments::of(advantages.iter().copied()).mean;
    let log_prob = Moments::of(log_probs.iter().copied()).mean;
    advantages.iter().zip(log_probs).map(|(a, l)| (a - advantage) * (l - log_prob)).collect()
}

fn at_most(share: PositiveUnit, tokens: usize) -> usize {
    ((share.get() * tokens as f64) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    // Means 0 and −2; covariances [3, 3, 0, 0, 0.5, 0.5].
    const ADVANTAGES: [f64; 6] = [2.0, -2.0, 0.0, 0.0, -1.0, 1.0];
    const LOG_PROBS: [f64; 6] = [-0.5, -3.5, -1.0, -3.0, -2.5, -1.5];

    #[test]
    fn a_share_of_high_covariance_is_left_out() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let one = PositiveUnit::new(0.01);
        let mask = clip_cov_mask(&ADVANTAGES, &LOG_PROBS, CovarianceRange::default(), one, &mut rng);
        assert_eq!(mask[..2].iter().sum::<f32>().to_bits(), 1.0_f32.to_bits(), "one of the two in range");
        assert_eq!(mask[2..], [1.0; 4]);
        let all = PositiveUnit::new(1.0);
        let mask = clip_cov_mask(&ADVANTAGES, &LOG_PROBS, CovarianceRange::default(), all, &mut rng);
        assert_eq!(mask, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(clip_cov_mask(&[], &[], CovarianceRange::default(), all, &mut rng).is_empty());
    }

    #[test]
    fn the_greatest_covariances_are_penalized() {
        assert_eq!(
            kl_cov_mask(&ADVANTAGES, &LOG_PROBS, PositiveUnit::new(0.01)),
            [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(
            kl_cov_mask(&ADVANTAGES, &LOG_PROBS, PositiveUnit::new(0.5)),
            [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
        );
    }
}
