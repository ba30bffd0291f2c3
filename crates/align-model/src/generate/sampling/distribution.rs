//! The distribution over the tokens that the filters keep.

use std::cmp::Ordering;

use rand_chacha::{ChaCha8Rng, rand_core::Rng};

use super::{Choice, Sampling, SamplingError, largest};
use crate::number::{PositiveUnit, ProperFraction, UnitInterval};

/// A token that is still possible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kept {
    /// Its id.
    pub token: u32,
    /// Its logit, penalised and divided by the temperature.
    pub logit: f32,
    /// Its probability among the kept tokens.
    pub probability: f64,
}

/// What a token is drawn from: the kept tokens in the order of their ids, never none.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    candidates: Vec<Candidate>,
    /// The largest logit before the filters.
    largest: f64,
    /// Sum of the candidates' weights.
    total: f64,
}

/// A token with exp(logit − largest logit) as its weight; filters compare and add weights and divide by their sum.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    token: u32,
    logit: f32,
    weight: f64,
}

impl Distribution {
    /// Temperature and filters, in the order of `sampling`'s fields.
    ///
    /// # Errors
    /// If a logit is NaN or `+inf`, or if all are `-inf`.
    pub(super) fn new(logits: &[f32], sampling: &Sampling) -> Result<Self, SamplingError> {
        let temperature = sampling.temperature.get() as f32;
        let (token, value) = largest(logits)?;
        let largest = value / temperature;
        if !largest.is_finite() {
            return Err(SamplingError::NotFinite { token, value: largest });
        }
        let border = match sampling.top_k {
            Some(k) if k.get() < logits.len() => kth_largest(logits, k.get()),
            _ => f32::NEG_INFINITY,
        } / temperature;
        let largest = f64::from(largest);
        let candidates = logits.iter().enumerate().filter_map(|(token, &logit)| {
            let logit = logit / temperature;
            let kept = logit >= border && logit > f32::NEG_INFINITY;
            kept.then(|| Candidate { token: token as u32, logit, weight: (f64::from(logit) - largest).exp() })
        });
        let mut distribution = Self { candidates: candidates.collect(), largest, total: 0.0 };
        distribution.sum_up();
        distribution.filter(sampling);
        Ok(distribution)
    }

    /// The kept tokens in the order of their ids.
    #[must_use]
    pub fn kept(&self) -> impl ExactSizeIterator<Item = Kept> + '_ {
        self.candidates.iter().map(|candidate| Kept {
            token: candidate.token,
            logit: candidate.logit,
            probability: candidate.weight / self.total,
        })
    }

    /// Draws a token: the first at which the cumulative probability exceeds a uniform number of 53 bits.
    #[must_use]
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Choice {
        let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let target = uniform * self.total;
        let mut cumulative = 0.0;
        // Rounding can leave the target at the sum itself; then the last token with any weight is meant.
        let mut drawn = None;
        for candidate in self.candidates.iter().filter(|candidate| candidate.weight > 0.0) {
            drawn = Some(candidate);
            cumulative += candidate.weight;
            if target < cumulative {
                break;
            }
        }
        let drawn = drawn.unwrap_or(&self.candidates[0]);
        let log_probability = f64::from(drawn.logit) - self.largest - self.total.ln();
        Choice { token: drawn.token, log_probability: log_probability as f32 }
    }

    fn filter(&mut self, sampling: &Sampling) {
        if let Some(p) = sampling.top_p.filter(|p| p.get() < 1.0) {
            self.top_p(p);
        }
        if let Some(p) = sampling.min_p {
            self.min_p(p);
        }
        if let Some(p) = sampling.typical_p.filter(|p| p.get() < 1.0) {
            self.typical_p(p);
        }
        if let Some(epsilon) = sampling.epsilon_cutoff {
            self.at_least(epsilon.get());
        }
        if let Some(eta) = sampling.eta_cutoff {
            self.eta(eta);
        }
    }

    fn sum_up(&mut self) {
        self.total = self.candidates.iter().map(|candidate| candidate.weight).sum();
    }

    /// Keeps the fewest candidates, largest first, that have the weight `p` · total. Sorts only as many as it needs.
    fn top_p(&mut self, p: PositiveUnit) {
        let target = p.get() * self.total;
        let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(b.token.cmp(&a.token));
        let (mut kept, mut weight, mut sorted) = (0, 0.0, 0);
        while kept < self.candidates.len() && weight < target {
            if kept == sorted {
                let rest = &mut self.candidates[sorted..];
                let next = rest.len().min((3 * sorted).max(64));
                if next < rest.len() {
                    rest.select_nth_unstable_by(next, order);
                }
                rest[..next].sort_unstable_by(order);
                sorted += next;
            }
            weight += self.candidates[kept].weight;
            kept += 1;
        }
        self.candidates.truncate(kept);
        self.candidates.sort_unstable_by_key(|candidate| candidate.token);
        self.sum_up();
    }

    fn min_p(&mut self, p: UnitInterval) {
        let border = p.get() * self.heaviest();
        self.candidates.retain(|candidate| candidate.weight >= border);
        self.sum_up();
    }

    fn typical_p(&mut self, p: PositiveUnit) {
        let entropy = self.entropy();
        let log_total = self.total.ln();
        let distance =
            |candidate: &Candidate| (entropy + f64::from(candidate.logit) - self.largest - log_total).abs();
        let mut nearest: Vec<(f64, f64)> = self.candidates.iter().map(|c| (distance(c), c.weight)).collect();
        nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
        let target = p.get() * self.total;
        let mut weight = 0.0;
        let reached = nearest.iter().find(|(_, more)| {
            weight += more;
            weight >= target
        });
        let border = reached.map_or(f64::INFINITY, |&(distance, _)| distance);
        let far = |candidate: &Candidate| distance(candidate).total_cmp(&border) == Ordering::Greater;
        let near: Vec<Candidate> = self.candidates.iter().filter(|c| !far(c)).copied().collect();
        self.candidates = near;
        self.sum_up();
    }

    fn eta(&mut self, eta: ProperFraction) {
        let eta = eta.get();
        self.at_least(eta.min(eta.sqrt() * (-self.entropy()).exp()));
    }

    /// Removes what is less likely than `probability`, but never the most likely.
    fn at_least(&mut self, probability: f64) {
        let border = (probability * self.total).min(self.heaviest());
        self.candidates.retain(|candidate| candidate.weight >= border);
        self.sum_up();
    }

    fn heaviest(&self) -> f64 {
        self.candidates.iter().fold(0.0, |most, candidate| candidate.weight.max(most))
    }

    /// −Σ p ln p
    fn entropy(&self) -> f64 {
        let mean =
            self.candidates.iter().map(|c| c.weight * (f64::from(c.logit) - self.largest)).sum::<f64>();
        self.total.ln() - mean / self.total
    }
}

/// The k-th largest number; k is at least 1 and below the count.
fn kth_largest(numbers: &[f32], k: usize) -> f32 {
    let mut numbers = numbers.to_vec();
    *numbers.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}
