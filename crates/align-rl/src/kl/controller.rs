//! What steers the weight of a divergence.

use std::num::NonZeroUsize;

use align_model::number::{NonNegative, Positive};
use serde::{Deserialize, Serialize};

/// How the coefficient of a divergence behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum KlControl {
    /// It stays as it is.
    Fixed {},
    /// It rises while the divergence is above its target and falls while it is below:
    /// `coefficient ← coefficient·(1 + clip(KL/target − 1, ±0.2)·n/horizon)`.
    ///
    /// Ziegler et al. 2019, [arXiv:1909.08593](https://arxiv.org/abs/1909.08593), §2.2, as in verl and OpenRLHF: `KL` is the mean
    /// over sequences or over tokens, whichever the target is meant for.
    Adaptive {
        /// The divergence that is wanted.
        target: Positive,
        /// After about so many samples the coefficient has followed; 10000 in OpenRLHF and verl.
        horizon: NonZeroUsize,
    },
}

impl Default for KlControl {
    fn default() -> Self {
        Self::Fixed {}
    }
}

/// A coefficient and what steers it; saved and restored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlController {
    coefficient: f64,
    control: KlControl,
}

impl KlController {
    /// A controller that begins with this coefficient.
    #[must_use]
    pub fn new(coefficient: NonNegative, control: KlControl) -> Self {
        Self { coefficient: coefficient.get(), control }
    }

    /// The coefficient now.
    #[must_use]
    pub fn coefficient(&self) -> f64 {
        self.coefficient
    }

    /// What steers it.
    #[must_use]
    pub fn control(&self) -> KlControl {
        self.control
    }

    /// Takes note of the divergence that was measured on so many samples. One that is no number changes nothing.
    pub fn update(&mut self, divergence: f64, samples: usize) {
        if let KlControl::Adaptive { target, horizon } = self.control
            && divergence.is_finite()
        {
            let error = (divergence / target.get() - 1.0).clamp(-0.2, 0.2);
            self.coefficient *= (1.0 + error * samples as f64 / horizon.get() as f64).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive() -> KlController {
        let horizon = NonZeroUsize::new(100).unwrap();
        KlController::new(NonNegative::new(0.1), KlControl::Adaptive { target: Positive::new(6.0), horizon })
    }

    #[test]
    fn an_adaptive_coefficient_follows_its_target() {
        let mut controller = adaptive();
        controller.update(12.0, 10);
        assert!((controller.coefficient() - 0.1 * 1.02).abs() < 1e-15, "the error counts as 0.2 at most");
        controller.update(5.4, 10);
        assert!((controller.coefficient() - 0.1 * 1.02 * 0.99).abs() < 1e-15);
        let before = controller;
        controller.update(f64::NAN, 10);
        assert_eq!(controller, before);
    }

    #[test]
    fn a_fixed_coefficient_stays() {
        let mut controller = KlController::new(NonNegative::new(0.05), KlControl::Fixed {});
        controller.update(1e9, 64);
        assert_eq!(controller.coefficient().to_bits(), 0.05_f64.to_bits());
    }

    #[test]
    fn a_controller_comes_back_as_it_was() {
        let mut controller = adaptive();
        controller.update(7.1, 3);
        let text = serde_json::to_string(&controller).unwrap();
        let restored: KlController = serde_json::from_str(&text).unwrap();
        assert_eq!(restored.coefficient().to_bits(), controller.coefficient().to_bits());
        assert_eq!(restored, controller);
    }
}
