//! Correlations and shares, with intervals.

use align_model::number::ProperFraction;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// From where to where a number lies with the confidence that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// A correlation coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// From −1 to 1.
    pub coefficient: f64,
    /// Where it lies with the confidence that was asked for.
    pub interval: Interval,
    /// Of how many pairs.
    pub count: usize,
}

/// Pearson's correlation, with Fisher's interval: `tanh(artanh r ± z / √(n − 3))`.
///
/// `None` with fewer than four pairs, or where one side does not vary.
///
/// # Panics
/// If the sides differ in length.
#[must_use]
pub fn pearson(x: &[f64], y: &[f64], confidence: ProperFraction) -> Option<Correlation> {
    let coefficient = coefficient(x, y)?;
    fisher(coefficient, x.len(), 1.0, confidence)
}

/// Spearman's correlation: Pearson's, of the [`ranks`]. Its interval is Fisher's, wider by the factor `√(1 + r²/2)`.
///
/// `None` with fewer than four pairs, or where one side does not vary.
///
/// # Source
/// Bonett and Wright 2000, *Sample Size Requirements for Estimating Pearson, Kendall and Spearman Correlations*.
///
/// # Panics
/// If the sides differ in length.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64], confidence: ProperFraction) -> Option<Correlation> {
    let coefficient = coefficient(&ranks(x), &ranks(y))?;
    let widening = (1.0 + coefficient * coefficient / 2.0).sqrt();
    fisher(coefficient, x.len(), widening, confidence)
}

/// Pearson's correlation with a percentile bootstrap interval of so many resamples, which assumes nothing of the
/// distribution.
///
/// `None` with fewer than four pairs, where one side does not vary, or without resamples. Resamples in which one side
/// does not vary are left out.
///
/// # Panics
/// If the sides differ in length.
#[must_use]
pub fn bootstrap_pearson(
    x: &[f64],
    y: &[f64],
    confidence: ProperFraction,
    resamples: usize,
    rng: &mut ChaCha8Rng,
) -> Option<Correlation> {
    let whole = coefficient(x, y)?;
    let count = x.len();
    let mut found = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let (x, y): (Vec<f64>, Vec<f64>) =
            (0..count).map(|_| rng.random_range(0..count)).map(|index| (x[index], y[index])).unzip();
        found.extend(coefficient(&x, &y));
    }
    found.sort_by(f64::total_cmp);
    let quantile = |part: f64| {
        let last = found.len().checked_sub(1)?;
        let place = part * last as f64;
        let (below, above) = (place.floor(), place.ceil());
        Some(found[below as usize] + (place - below) * (found[above as usize] - found[below as usize]))
    };
    let tail = (1.0 - confidence.get()) / 2.0;
    let interval = Interval { low: quantile(tail)?, high: quantile(1.0 - tail)? };
    Some(Correlation { coefficient: whole, interval, count })
}

/// Places in ascending order, counted from 1; equal values share the mean of theirs.
#[must_use]
#[allow(clippy::float_cmp, reason = "only equal values share a rank")]
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&left, &right| values[left].total_cmp(&values[right]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let value = values[order[start]];
        let equal = order[start..].iter().take_while(|&&index| values[index] == value).count().max(1);
        for &index in &order[start..start + equal] {
            ranks[index] = start as f64 + 0.5 * (equal as f64 + 1.0);
        }
        start += equal;
    }
    ranks
}

/// Wilson's interval of a share; from 0 to 1 where there is nothing to count.
///
/// # Source
/// Wilson 1927, *Probable Inference, the Law of Succession, and Statistical Inference*.
///
/// # Panics
/// If there are more hits than trials.
#[must_use]
pub fn wilson_interval(hits: usize, trials: usize, confidence: ProperFraction) -> Interval {
    assert!(hits <= trials, "{hits} hits in {trials} trials");
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, z) = (trials as f64, z(confidence));
    let share = hits as f64 / n;
    let centre = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    // Rounding must not lead out of what is possible.
    let low = if hits == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if hits == trials { 1.0 } else { (centre + half).min(1.0) };
    Interval { low, high }
}

/// How many standard deviations around the mean hold this part of a normal distribution.
pub(super) fn z(confidence: ProperFraction) -> f64 {
    Normal::standard().inverse_cdf(0.5 + confidence.get() / 2.0)
}

fn coefficient(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "both sides need as many values");
    if x.len() < 4 {
        return None;
    }
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    let r = xy / (xx.sqrt() * yy.sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

fn fisher(r: f64, count: usize, widening: f64, confidence: ProperFraction) -> Option<Correlation> {
    let half = widening * z(confidence) / ((count.checked_sub(3)?) as f64).sqrt();
    // artanh of ±1 is infinite, and tanh brings it back.
    let interval = Interval { low: (r.atanh() - half).tanh(), high: (r.atanh() + half).tanh() };
    Some(Correlation { coefficient: r, interval, count })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const CONFIDENCE: ProperFraction = ProperFraction::new(0.95);

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }

    /// The expected values were computed with `numpy`.
    #[test]
    fn correlations_are_numpys() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let y = [2.0, 1.0, 4.0, 3.0, 7.0, 5.0, 5.0];
        let found = pearson(&x, &y, CONFIDENCE).unwrap();
        close(found.coefficient, 0.758_098_043_6);
        close(found.interval.low, 0.011_745_138_3);
        close(found.interval.high, 0.961_973_368_6);
        close(spearman(&x, &y, CONFIDENCE).unwrap().coefficient, 0.810_843_716_4);
        assert_eq!(ranks(&y), [2.0, 1.0, 4.0, 3.0, 7.0, 5.5, 5.5]);
    }

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        assert_eq!(pearson(&[1.0; 5], &[1.0, 2.0, 3.0, 4.0, 5.0], CONFIDENCE), None);
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], CONFIDENCE), None);
        let x = [1.0, 2.0, 3.0, 4.0];
        let same = pearson(&x, &x, CONFIDENCE).unwrap();
        close(same.coefficient, 1.0);
        assert!(same.interval.low <= 1.0 && same.interval.high <= 1.0);
    }

    #[test]
    fn the_bootstrap_holds_the_coefficient_and_repeats_itself() {
        let x: Vec<f64> = (0..60).map(f64::from).collect();
        let y: Vec<f64> = (0..60).map(|n| f64::from(n) + f64::from(n * 37 % 41)).collect();
        let draw = || bootstrap_pearson(&x, &y, CONFIDENCE, 500, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let found = draw();
        assert!(found.interval.low < found.coefficient && found.coefficient < found.interval.high);
        let fisher = pearson(&x, &y, CONFIDENCE).unwrap();
        assert!((found.interval.low - fisher.interval.low).abs() < 0.1, "{found:?} {fisher:?}");
        assert_eq!(found, draw());
    }

    #[test]
    fn wilsons_interval_is_known() {
        let interval = wilson_interval(8, 10, CONFIDENCE);
        close(interval.low, 0.490_162_5);
        close(interval.high, 0.943_317_8);
        assert_eq!(wilson_interval(0, 0, CONFIDENCE), Interval { low: 0.0, high: 1.0 });
        assert!(wilson_interval(0, 10, CONFIDENCE).high < 0.3);
    }

    proptest! {
        #[test]
        fn correlations_do_not_depend_on_order_and_scale(
            pairs in prop::collection::vec((-9f64..9.0, -9f64..9.0), 4..20), scale in 0.1f64..9.0,
        ) {
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            let back: (Vec<f64>, Vec<f64>) = pairs.iter().rev().map(|(x, y)| (x * scale + 3.0, -y)).unzip();
            for of in [pearson, spearman] {
                if let (Some(one), Some(other)) = (of(&x, &y, CONFIDENCE), of(&back.0, &back.1, CONFIDENCE)) {
                    prop_assert!((one.coefficient + other.coefficient).abs() < 1e-9);
                    prop_assert!(one.interval.low <= one.coefficient && one.coefficient <= one.interval.high);
                }
            }
        }

        #[test]
        fn wilsons_interval_holds_the_share(hits in 0usize..50, more in 0usize..50) {
            let interval = wilson_interval(hits, hits + more, CONFIDENCE);
            prop_assert!(0.0 <= interval.low && interval.high <= 1.0);
            if hits + more > 0 {
                let share = hits as f64 / (hits + more) as f64;
                prop_assert!(interval.low <= share && share <= interval.high);
            }
        }
    }
}
