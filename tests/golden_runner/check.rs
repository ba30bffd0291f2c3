//! Counts cases and compares numbers, keeping the worst.

use std::fmt::Debug;

/// How far apart two numbers may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// `|a − b| ≤ t`
    Absolute(f64),
    /// `|a − b| ≤ t·|b|`
    Relative(f64),
    /// `|a − b| ≤ relative·|b| + absolute`
    Mixed { relative: f64, absolute: f64 },
    /// `|a − b| ≤ t·max|b|` over the whole array
    OfLargest(f64),
}

impl Tolerance {
    fn allowed(self, expected: f64, largest: f64) -> f64 {
        match self {
            Self::Absolute(t) => t,
            Self::Relative(t) => t * expected.abs(),
            Self::Mixed { relative, absolute } => relative * expected.abs() + absolute,
            Self::OfLargest(t) => t * largest,
        }
    }
}

impl std::fmt::Display for Tolerance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absolute(t) => write!(f, "{t:.0e} absolute"),
            Self::Relative(t) => write!(f, "{t:.0e} relative"),
            Self::Mixed { relative, absolute } => write!(f, "{relative:.0e} relative + {absolute:.0e}"),
            Self::OfLargest(t) => write!(f, "{t:.0e} of the largest"),
        }
    }
}

/// The running result of one golden file.
#[derive(Debug, Default)]
pub struct Check {
    pub cases: usize,
    pub failures: Vec<String>,
    /// Error as a share of what is allowed, the error itself in the tolerance's own measure, and that tolerance.
    pub worst: Option<(f64, f64, Tolerance)>,
}

impl Check {
    /// Begins a case: everything compared until the next call belongs to it.
    pub fn case(&mut self) {
        self.cases += 1;
    }

    /// Records that something is wrong that is no number.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Two things that must be the same.
    pub fn equal<T: PartialEq + Debug + ?Sized>(&mut self, what: &str, actual: &T, expected: &T) {
        if actual != expected {
            self.fail(format!("{what}: got {actual:?}, expected {expected:?}"));
        }
    }

    /// Two arrays of numbers, entry by entry. NaN equals NaN and an infinity equals itself.
    pub fn close(&mut self, what: &str, actual: &[f64], expected: &[f64], tolerance: Tolerance) {
        if actual.len() != expected.len() {
            self.fail(format!("{what}: {} numbers, expected {}", actual.len(), expected.len()));
            return;
        }
        let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
        let mut worst = (0.0f64, 0.0f64, 0usize);
        for (index, (&a, &b)) in actual.iter().zip(expected).enumerate() {
            if a == b || (a.is_nan() && b.is_nan()) {
                continue;
            }
            let error = (a - b).abs();
            let share = error / tolerance.allowed(b, largest);
            let measured = match tolerance {
                Tolerance::Absolute(_) => error,
                Tolerance::Relative(_) | Tolerance::Mixed { .. } => error / b.abs().max(f64::MIN_POSITIVE),
                Tolerance::OfLargest(_) => error / largest,
            };
            // NaN compares false, so "not within" is what must be asked.
            if !(share <= worst.0) {
                worst = (if share.is_nan() { f64::INFINITY } else { share }, measured, index);
            }
        }
        if !(worst.0 <= 1.0) {
            let at = worst.2;
            self.fail(format!(
                "{what}[{at}]: got {}, expected {} (allowed {tolerance})",
                actual[at], expected[at]
            ));
        }
        if self.worst.is_none_or(|(share, ..)| worst.0 >= share) {
            self.worst = Some((worst.0, worst.1, tolerance));
        }
    }

    /// One number.
    pub fn close_scalar(&mut self, what: &str, actual: f64, expected: f64, tolerance: Tolerance) {
        self.close(what, &[actual], &[expected], tolerance);
    }
}
