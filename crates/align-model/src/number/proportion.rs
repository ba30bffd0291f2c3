//! A share of what was counted, and how far it can be trusted.

use serde::{Deserialize, Serialize};

/// The normal distribution's 97.5 % quantile.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// How many of how many, and what that says about the share.
///
/// ```
/// use align_model::number::Proportion;
///
/// let right = Proportion::new(60, 100);
/// assert_eq!(right.share, 0.6);
/// assert!(right.low > 0.5 && right.high < 0.7);
/// assert!(Proportion::new(6, 10).low < 0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    /// How many.
    pub count: usize,
    /// Of how many.
    pub total: usize,
    /// Their quotient; 0 of nothing.
    pub share: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end of the 95 % interval.
    pub high: f64,
}

impl Proportion {
    /// With Wilson's score interval at 95 %, which keeps its meaning near 0 and 1.
    ///
    /// Wilson 1927, *Probable Inference, the Law of Succession, and Statistical Inference*, JASA 22.
    #[must_use]
    pub fn new(count: usize, total: usize) -> Self {
        if total == 0 {
            return Self { count, total, share: 0.0, low: 0.0, high: 1.0 };
        }
        let (n, z2) = (total as f64, NORMAL_QUANTILE * NORMAL_QUANTILE);
        let share = count as f64 / n;
        let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let spread = share * (1.0 - share) / n + z2 / (4.0 * n * n);
        let half = NORMAL_QUANTILE * spread.sqrt() / (1.0 + z2 / n);
        Self { count, total, share, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of R's `prop.test(x, n, correct = FALSE)`.
    #[test]
    fn the_interval_is_wilsons() {
        let near = |a: f64, b: f64| (a - b).abs() < 5e-5;
        let half = Proportion::new(5, 10);
        assert!(near(half.low, 0.2366) && near(half.high, 0.7634), "{half:?}");
        let none = Proportion::new(0, 10);
        assert!(near(none.low, 0.0) && near(none.high, 0.2775), "{none:?}");
        assert_eq!(Proportion::new(0, 0), Proportion { count: 0, total: 0, share: 0.0, low: 0.0, high: 1.0 });
    }
}
