//! The distribution that tokens are scored under: the model's own, or the one that they were sampled from.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Targets;
use crate::number::Positive;

/// What is done to the model's distribution before a target is looked up in it, so that a sampled token can be scored
/// under the distribution that it was drawn from.
///
/// Everything that a pass says of its targets is then of that distribution, a reference's included; gradients are those
/// of what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoringDistribution {
    /// Divides the logits. 1 changes nothing.
    pub temperature: Positive,
    /// What could be drawn at each target, in the targets' order; `None` where everything could be everywhere.
    pub supports: Option<Vec<Support>>,
}

/// The tokens that can be drawn at one position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// The whole vocabulary.
    #[default]
    All,
    /// These alone, in the order of their ids.
    Only(Vec<u32>),
    /// All but these, in the order of their ids.
    AllBut(Vec<u32>),
}

impl Default for ScoringDistribution {
    /// The model's own distribution.
    fn default() -> Self {
        Self::tempered(Positive::new(1.0))
    }
}

impl ScoringDistribution {
    /// The model's distribution with its logits divided by a temperature.
    #[must_use]
    pub fn tempered(temperature: Positive) -> Self {
        Self { temperature, supports: None }
    }

    /// Checks that each target has a support, and is in it.
    pub(super) fn check(&self, targets: &Targets) {
        let Some(supports) = &self.supports else { return };
        assert_eq!(supports.len(), targets.len(), "one support for each target");
        let allowed = supports.iter().zip(targets.tokens()).all(|(support, &token)| support.allows(token));
        assert!(allowed, "every target can be drawn from its support");
    }

    /// What is done to the logits of `length` targets from `start` on.
    pub(super) fn chunk(&self, start: usize, length: usize, vocab: usize, device: &Device) -> Reshaping {
        let supports = self.supports.as_ref().map(|supports| &supports[start..start + length]);
        let some_are_restricted = |supports: &&[Support]| supports.iter().any(|it| *it != Support::All);
        Reshaping {
            temperature: self.temperature.get(),
            restriction: supports
                .filter(some_are_restricted)
                .map(|supports| Restriction::new(supports, vocab, device)),
        }
    }
}

impl Support {
    /// These tokens of a vocabulary of `vocab`, in the shorter of the ways to write them. `tokens` are in the order of
    /// their ids, none twice.
    #[must_use]
    pub fn of(tokens: impl ExactSizeIterator<Item = u32>, vocab: usize) -> Self {
        if tokens.len() == vocab {
            return Self::All;
        }
        if tokens.len() * 2 <= vocab {
            return Self::Only(tokens.collect());
        }
        let (mut missing, mut next) = (Vec::with_capacity(vocab - tokens.len()), 0);
        for token in tokens {
            missing.extend(next..token);
            next = token + 1;
        }
        missing.extend(next..vocab as u32);
        Self::AllBut(missing)
    }

    /// Whether a token can be drawn.
    #[must_use]
    pub fn allows(&self, token: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(tokens) => tokens.binary_search(&token).is_ok(),
            Self::AllBut(tokens) => tokens.binary_search(&token).is_err(),
        }
    }

    /// How many tokens of a vocabulary of `vocab` can be drawn.
    #[must_use]
    pub fn size(&self, vocab: usize) -> usize {
        match self {
            Self::All => vocab,
            Self::Only(tokens) => tokens.len(),
            Self::AllBut(tokens) => vocab - tokens.len(),
        }
    }

    /// Marks what cannot be drawn; `row` has one entry a token.
    fn mark_forbidden(&self, row: &mut [bool]) {
        let (named, named_are_forbidden) = match self {
            Self::All => return,
            Self::Only(tokens) => (tokens, false),
            Self::AllBut(tokens) => (tokens, true),
        };
        row.fill(!named_are_forbidden);
        for &token in named {
            row[token as usize] = named_are_forbidden;
        }
    }
}

/// A temperature and a restriction of one chunk's logits. Plain tensors, without a graph.
#[derive(Debug, Clone)]
pub(super) struct Reshaping {
    temperature: f64,
    restriction: Option<Restriction>,
}

/// Which tokens cannot be drawn.
#[derive(Debug, Clone)]
struct Restriction {
    /// `[chunk, vocab]`
    forbidden: Tensor<2, Bool>,
    /// How many can be drawn. `[chunk, 1]`
    sizes: Tensor<2>,
}

/// The logit of what cannot be drawn: its probability is exactly 0, and 0 times it is 0 and not NaN.
const FORBIDDEN: f32 = -1e9;

impl Reshaping {
    /// The distribution's own logits. `[chunk, vocab]`
    pub(super) fn apply(&self, logits: Tensor<2>) -> Tensor<2> {
        let logits = self.scaled(logits);
        match &self.restriction {
            Some(Restriction { forbidden, .. }) => logits.mask_fill(forbidden.clone(), FORBIDDEN),
            None => logits,
        }
    }

    /// The gradient with respect to the model's logits, given that with respect to the distribution's own, which is 0
    /// for what cannot be drawn. `[chunk, vocab]`
    pub(super) fn of_model(&self, gradient: Tensor<2>) -> Tensor<2> {
        self.scaled(gradient)
    }

    fn scaled(&self, values: Tensor<2>) -> Tensor<2> {
        if (self.temperature - 1.0).abs() > 0.0 { values / self.temperature } else { values }
    }

    /// The mean of the distribution's own logits over what can be drawn; `None` where that is everything. `[chunk, 1]`
    pub(super) fn mean_logits(&self, logits: &Tensor<2>) -> Option<Tensor<2>> {
        let Restriction { forbidden, sizes } = self.restriction.as_ref()?;
        Some(logits.clone().mask_fill(forbidden.clone(), 0.0).sum_dim(1) / sizes.clone())
    }

    /// The uniform distribution over what can be drawn; `None` where that is everything. `[chunk, vocab]`
    pub(super) fn uniform(&self) -> Option<Tensor<2>> {
        let Restriction { forbidden, sizes } = self.restriction.as_ref()?;
        Some(forbidden.clone().bool_not().float() / sizes.clone())
    }
}

impl Restriction {
    fn new(supports: &[Support], vocab: usize, device: &Device) -> Self {
        let rows = supports.len();
        let mut forbidden = vec![false; rows * vocab];
        for (support, row) in supports.iter().zip(forbidden.chunks_mut(vocab)) {
            support.mark_forbidden(row);
        }
        let sizes: Vec<f32> = supports.iter().map(|support| support.size(vocab) as f32).collect();
        Self {
            forbidden: Tensor::from_data(TensorData::new(forbidden, [rows, vocab]), device),
            sizes: Tensor::from_data(TensorData::new(sizes, [rows, 1]), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_support_is_written_the_shorter_way() {
        let of = |tokens: &[u32]| Support::of(tokens.iter().copied(), 6);
        assert_eq!(of(&[0, 1, 2, 3, 4, 5]), Support::All);
        assert_eq!(of(&[1, 4]), Support::Only(vec![1, 4]));
        assert_eq!(of(&[1, 2, 3, 4]), Support::AllBut(vec![0, 5]));
        assert_eq!(of(&[0, 2, 3, 5]), Support::AllBut(vec![1, 4]));
        for tokens in [&[1, 4][..], &[0, 2, 3, 5], &[0, 1, 2, 3, 4, 5]] {
            let support = of(tokens);
            assert_eq!(support.size(6), tokens.len());
            assert!((0..6).all(|token| support.allows(token) == tokens.contains(&token)));
            let text = serde_json::to_string(&support).unwrap();
            assert_eq!(serde_json::from_str::<Support>(&text).unwrap(), support);
        }
    }
}
