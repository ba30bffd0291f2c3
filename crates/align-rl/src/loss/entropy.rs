//! Entropy: a bonus for keeping it, and the tokens that have most of it.

use align_model::number::{NonNegative, UnitInterval};
use serde::{Deserialize, Serialize};

/// A reward for entropy: `L −= coefficient · mean_t H_t`, over the tokens that are [kept](crate::PolicyTokens::is_kept).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyBonus {
    /// What the mean is multiplied by; where it adapts, to begin with.
    pub coefficient: NonNegative,
    /// How the coefficient follows the entropy; it does not unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveEntropy>,
}

/// A coefficient that rises by a little while the entropy is below its target and falls while it is above, where the bonus is
/// not given at all.
///
/// # Source
/// He et al. 2025, *Skywork Open Reasoner 1*, [arXiv:2505.22312](https://arxiv.org/abs/2505.22312), as in TRL.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveEntropy {
    /// The entropy that is wanted, in nats a token.
    pub target: NonNegative,
    /// By how much the coefficient changes at each update.
    pub delta: NonNegative,
    /// The least coefficient.
    pub minimum: NonNegative,
    /// The greatest coefficient.
    pub maximum: NonNegative,
}

impl Default for AdaptiveEntropy {
    /// TRL's: toward 0.2 in steps of 0.005, from 0 to 1.
    fn default() -> Self {
        let (target, delta) = (NonNegative::new(0.2), NonNegative::new(0.005));
        Self { target, delta, minimum: NonNegative::new(0.0), maximum: NonNegative::new(1.0) }
    }
}

/// The state of an [`EntropyBonus`]; saved and restored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyController {
    coefficient: f64,
    adaptive: Option<AdaptiveEntropy>,
    /// Whether the last update found the entropy at its target or below.
    is_low: bool,
}

impl EntropyController {
    /// The state before the first update.
    #[must_use]
    pub fn new(bonus: EntropyBonus) -> Self {
        let EntropyBonus { coefficient, adaptive } = bonus;
        Self { coefficient: coefficient.get(), adaptive, is_low: false }
    }

    /// The coefficient that the controller has arrived at: TRL's metric `entropy_coef`.
    #[must_use]
    pub fn coefficient(&self) -> f64 {
        self.coefficient
    }

    /// The bonus of the next update. One that adapts gives nothing before an entropy was measured, and nothing above its
    /// target.
    #[must_use]
    pub fn bonus(&self) -> EntropyBonus {
        let applies = self.adaptive.is_none() || self.is_low;
        let coefficient = NonNegative::new(if applies { self.coefficient } else { 0.0 });
        EntropyBonus { coefficient, adaptive: self.adaptive }
    }

    /// Takes note of the mean entropy of an update's tokens. One that is no number changes nothing.
    pub fn update(&mut self, entropy: f64) {
        let Some(adaptive) = self.adaptive.filter(|_| entropy.is_finite()) else { return };
        self.is_low = entropy <= adaptive.target.get();
        self.coefficient = if self.is_low {
            (self.coefficient + adaptive.delta.get()).min(adaptive.maximum.get())
        } else {
            (self.coefficient - adaptive.delta.get()).max(adaptive.minimum.get())
        };
    }
}

/// The value below which a share `q` of the values lies, between two of them by a straight line; `None` of nothing.
///
/// Tokens with an entropy of at least `quantile(entropies, 1 − share)` are the top share of them, which alone are learnt from in
/// Wang et al. 2025, *Beyond the 80/20 Rule*, [arXiv:2506.01939](https://arxiv.org/abs/2506.01939).
#[must_use]
pub fn quantile(values: &[f64], q: UnitInterval) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let mut place = q.get() * last as f64;
    // A share such as 1 − 0.2 of 45 is a rounding error away from 36, which is one value's place.
    if (place - place.round()).abs() < 1e-9 {
        place = place.round();
    }
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[below] + (sorted[above] - sorted[below]) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_two_values() {
        // torch.quantile(torch.tensor([3., 1., 2., 4.]), q)
        let values = [3.0, 1.0, 2.0, 4.0];
        let at = |q| quantile(&values, UnitInterval::new(q)).unwrap();
        assert!((at(0.0) - 1.0).abs() < 1e-15 && (at(1.0) - 4.0).abs() < 1e-15);
        assert!((at(0.8) - 3.4).abs() < 1e-12 && (at(0.5) - 2.5).abs() < 1e-15);
        assert_eq!(quantile(&[], UnitInterval::new(0.5)), None);
    }

    #[test]
    fn a_fixed_bonus_stays() {
        let bonus = EntropyBonus { coefficient: NonNegative::new(0.01), adaptive: None };
        let mut controller = EntropyController::new(bonus);
        controller.update(0.0);
        assert_eq!(controller.bonus(), bonus);
    }

    #[test]
    fn an_adaptive_bonus_is_given_while_entropy_is_low() {
        let adaptive = AdaptiveEntropy { maximum: NonNegative::new(0.012), ..AdaptiveEntropy::default() };
        let bonus = EntropyBonus { coefficient: NonNegative::new(0.0), adaptive: Some(adaptive) };
        let mut controller = EntropyController::new(bonus);
        let given = |controller: &EntropyController| controller.bonus().coefficient.get();
        assert!(given(&controller) == 0.0, "nothing was measured");
        for expected in [0.005, 0.01, 0.012, 0.012] {
            controller.update(0.1);
            assert!((given(&controller) - expected).abs() < 1e-15);
        }
        controller.update(f64::NAN);
        assert!((given(&controller) - 0.012).abs() < 1e-15, "what is no number changes nothing");
        controller.update(0.3);
        assert!(given(&controller) == 0.0 && (controller.coefficient() - 0.007).abs() < 1e-15);
        let text = serde_json::to_string(&controller).unwrap();
        assert_eq!(serde_json::from_str::<EntropyController>(&text).unwrap(), controller);
    }
}
