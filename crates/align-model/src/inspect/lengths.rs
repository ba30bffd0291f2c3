//! How long things are: extremes, percentiles, a histogram.

use serde::Serialize;

/// Statistics of some lengths; all zero where there are none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LengthStatistics {
    /// How many lengths.
    pub count: usize,
    /// Their sum.
    pub total: usize,
    /// The shortest.
    pub minimum: usize,
    /// The mean.
    pub mean: f64,
    /// For some shares of all, the length that so many do not exceed (nearest rank).
    pub percentiles: Vec<Percentile>,
    /// The longest.
    pub maximum: usize,
    /// How many lengths lie between which bounds.
    pub histogram: Vec<Bin>,
}

/// A percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentile {
    /// Per cent of all.
    pub percent: u8,
    /// The length that they do not exceed.
    pub length: usize,
}

/// A bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// The shortest length that belongs here.
    pub from: usize,
    /// The longest.
    pub to: usize,
    /// How many there are.
    pub count: usize,
}

const PERCENTS: [u8; 7] = [5, 25, 50, 75, 90, 95, 99];
const BINS: usize = 10;

impl LengthStatistics {
    /// Statistics of these lengths.
    #[must_use]
    pub fn of(lengths: &[usize]) -> Self {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let (Some(&minimum), Some(&maximum)) = (sorted.first(), sorted.last()) else {
            return Self::default();
        };
        let total = sorted.iter().sum::<usize>();
        Self {
            count: sorted.len(),
            total,
            minimum,
            mean: total as f64 / sorted.len() as f64,
            percentiles: PERCENTS.map(|percent| Percentile { percent, length: at(&sorted, percent) }).into(),
            maximum,
            histogram: histogram(&sorted),
        }
    }
}

/// The smallest of `sorted` that is not exceeded by so many per cent.
fn at(sorted: &[usize], percent: u8) -> usize {
    let rank = (sorted.len() * usize::from(percent)).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Bars of equal, round widths up to the 99th percentile; the last holds everything above.
fn histogram(sorted: &[usize]) -> Vec<Bin> {
    let width = round_up(at(sorted, 99).saturating_add(1).div_ceil(BINS));
    let mut bins: Vec<Bin> = Vec::new();
    let last = at(sorted, 99) / width;
    for index in 0..=last {
        let from = index * width;
        let to = if index == last { sorted[sorted.len() - 1] } else { from + width - 1 };
        let count = sorted.partition_point(|&x| x <= to) - sorted.partition_point(|&x| x < from);
        bins.push(Bin { from, to, count });
    }
    bins
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn round_up(number: usize) -> usize {
    let mut power = 1usize;
    loop {
        for factor in [1, 2, 5] {
            if power.saturating_mul(factor) >= number {
                return power.saturating_mul(factor);
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let statistics = LengthStatistics::of(&(1..=100).rev().collect::<Vec<_>>());
        let lengths: Vec<usize> = statistics.percentiles.iter().map(|p| p.length).collect();
        assert_eq!(lengths, [5, 25, 50, 75, 90, 95, 99]);
        assert_eq!((statistics.minimum, statistics.maximum, statistics.total), (1, 100, 5050));
        assert!((statistics.mean - 50.5).abs() < 1e-12);
        assert_eq!(LengthStatistics::of(&[7]).percentiles[0].length, 7);
    }

    #[test]
    fn bars_hold_every_length_once() {
        let lengths: Vec<usize> = (0..1000).map(|i| i * i % 777 + usize::from(i == 5) * 100_000).collect();
        let histogram = LengthStatistics::of(&lengths).histogram;
        assert_eq!(histogram.iter().map(|bin| bin.count).sum::<usize>(), 1000);
        assert!(histogram.windows(2).all(|pair| pair[0].to + 1 == pair[1].from));
        assert!(histogram.len() <= BINS + 1);
        assert_eq!((histogram[0].from, histogram[0].to), (0, 99));
        assert_eq!(histogram.last().unwrap().to, 100_025);
    }

    #[test]
    fn nothing_has_no_length() {
        assert_eq!(LengthStatistics::of(&[]), LengthStatistics::default());
        assert_eq!(LengthStatistics::of(&[0, 0]).histogram, [Bin { from: 0, to: 0, count: 2 }]);
    }
}
