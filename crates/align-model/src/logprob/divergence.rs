//! How far a model's next-token distribution is from another's, and the gradient back to the model's logits.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::number::UnitInterval;

/// A distance between the distribution of a model, π, and that of its reference or teacher, ρ.
///
/// ```text
/// reverse_kl       KL(π ‖ ρ)
/// forward_kl       KL(ρ ‖ π)
/// jensen_shannon   β·KL(ρ ‖ m) + (1 − β)·KL(π ‖ m)        m = β·ρ + (1 − β)·π
/// ```
///
/// # Source
/// Agarwal et al. 2023, *On-Policy Distillation of Language Models*, [arXiv:2306.13649](https://arxiv.org/abs/2306.13649),
/// Eq. 1, with the limits that TRL's `GKDTrainer` gives its `beta`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// `KL(π ‖ ρ)`: the model leaves out what the reference finds unlikely.
    ReverseKl {},
    /// `KL(ρ ‖ π)`: the model covers whatever the reference may say.
    ForwardKl {},
    /// The generalised Jensen–Shannon divergence, which is between them and bounded.
    JensenShannon {
        /// Weight of the reference in the mixture; 0 is the forward and 1 the reverse KL divergence. One half unless given.
        #[serde(default = "one_half")]
        beta: UnitInterval,
    },
}

impl Default for Divergence {
    fn default() -> Self {
        Self::ReverseKl {}
    }
}

fn one_half() -> UnitInterval {
    UnitInterval::new(0.5)
}

/// A distribution over the vocabulary at each position. `[chunk, vocab]` each
#[derive(Debug, Clone)]
pub(super) struct Distributions {
    pub(super) probabilities: Tensor<2>,
    pub(super) log_probs: Tensor<2>,
}

/// A divergence at each position of a chunk, with what its gradient needs. Plain tensors, without a graph.
#[derive(Debug, Clone)]
pub(super) struct ChunkDivergence {
    /// `[chunk, 1]`
    pub(super) values: Tensor<2>,
    slope: Slope,
}

/// What the gradient with respect to the logits is made of. `[chunk, vocab]` each
#[derive(Debug, Clone)]
enum Slope {
    /// `s − E s`, where `s = ∂D/∂π` and the expectation is under π: the gradient is π times that.
    Centred(Tensor<2>),
    /// ρ itself: the gradient is `π − ρ`.
    Reference(Tensor<2>),
}

impl Divergence {
    /// Measures it between the distributions of a model and of its reference.
    pub(super) fn between(self, model: Distributions, reference: Distributions) -> ChunkDivergence {
        match self {
            Self::ReverseKl {} => reverse_kl(model, reference),
            Self::ForwardKl {} => forward_kl(model, reference),
            Self::JensenShannon { beta } if beta.get() <= 0.0 => forward_kl(model, reference),
            Self::JensenShannon { beta } if beta.get() >= 1.0 => reverse_kl(model, reference),
            Self::JensenShannon { beta } => jensen_shannon(model, reference, beta.get()),
        }
    }
}

impl ChunkDivergence {
    /// The gradient with respect to the model's logits. `probabilities`: the model's, `[chunk, vocab]`, as the result.
    pub(super) fn logit_gradient(self, probabilities: Tensor<2>) -> Tensor<2> {
        match self.slope {
            Slope::Centred(slope) => probabilities * slope,
            Slope::Reference(reference) => probabilities - reference,
        }
    }
}

fn reverse_kl(model: Distributions, reference: Distributions) -> ChunkDivergence {
    let slope = model.log_probs - reference.log_probs;
    let values = (model.probabilities * slope.clone()).sum_dim(1);
    ChunkDivergence { slope: Slope::Centred(slope - values.clone()), values }
}

fn forward_kl(model: Distributions, reference: Distributions) -> ChunkDivergence {
    let ratio = reference.log_probs - model.log_probs;
    let values = (reference.probabilities.clone() * ratio).sum_dim(1);
    ChunkDivergence { values, slope: Slope::Reference(reference.probabilities) }
}

/// The parts of the slope that come from the mixture cancel: `∂D/∂π = (1 − β)·log(π/m)`, up to a constant.
fn jensen_shannon(model: Distributions, reference: Distributions, beta: f64) -> ChunkDivergence {
    let mixture =
        log_sum_exp(model.log_probs.clone() + (-beta).ln_1p(), reference.log_probs.clone() + beta.ln());
    let of_reference = (reference.probabilities * (reference.log_probs - mixture.clone())).sum_dim(1);
    let slope = (model.log_probs - mixture) * (1.0 - beta);
    let expected = (model.probabilities * slope.clone()).sum_dim(1);
    let values = of_reference * beta + expected.clone();
    ChunkDivergence { values, slope: Slope::Centred(slope - expected) }
}

/// `log(eᵃ + eᵇ)`, entry by entry.
fn log_sum_exp(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let largest = a.clone().max_pair(b.clone());
    let smallest = a.min_pair(b);
    largest.clone() + (smallest - largest).exp().log1p()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{
        Device, TensorData,
        activation::{log_softmax, softmax},
    };
    use proptest::prelude::*;

    use super::*;

    fn tensor(values: &[f32], rows: usize) -> Tensor<2> {
        let shape = [rows, values.len() / rows];
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn distributions(logits: &Tensor<2>) -> Distributions {
        Distributions { probabilities: softmax(logits.clone(), 1), log_probs: log_softmax(logits.clone(), 1) }
    }

    fn read(x: Tensor<2>) -> Vec<f64> {
        x.into_data().iter::<f64>().collect()
    }

    fn all() -> Vec<Divergence> {
        let between =
            [0.0, 0.1, 0.5, 0.9, 1.0].map(|beta| Divergence::JensenShannon { beta: UnitInterval::new(beta) });
        [vec![Divergence::ReverseKl {}, Divergence::ForwardKl {}], between.to_vec()].concat()
    }

    /// The definition, in double precision.
    fn naive(divergence: Divergence, p: &[f64], q: &[f64]) -> f64 {
        let kl = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum::<f64>();
        match divergence {
            Divergence::ReverseKl {} => kl(p, q),
            Divergence::ForwardKl {} => kl(q, p),
            Divergence::JensenShannon { beta } if beta.get() <= 0.0 => kl(q, p),
            Divergence::JensenShannon { beta } if beta.get() >= 1.0 => kl(p, q),
            Divergence::JensenShannon { beta } => {
                let beta = beta.get();
                let mixture: Vec<f64> = p.iter().zip(q).map(|(p, q)| beta * q + (1.0 - beta) * p).collect();
                beta * kl(q, &mixture) + (1.0 - beta) * kl(p, &mixture)
            }
        }
    }

    fn exact_softmax(logits: &[f32]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        logits.iter().map(|&z| f64::from(z).exp() / sum).collect()
    }

    proptest! {
        #[test]
        fn values_and_gradients_are_those_of_the_definition(
            model in prop::collection::vec(-4.0f32..4.0, 7), reference in prop::collection::vec(-4.0f32..4.0, 7),
        ) {
            let q = exact_softmax(&reference);
            for divergence in all() {
                let (of_model, of_reference) =
                    (distributions(&tensor(&model, 1)), distributions(&tensor(&reference, 1)));
                let probabilities = of_model.probabilities.clone();
                let chunk = divergence.between(of_model, of_reference);
                let value = read(chunk.values.clone())[0];
                let expected = naive(divergence, &exact_softmax(&model), &q);
                prop_assert!((value - expected).abs() < 2e-6 + 1e-5 * expected, "{divergence:?}: {value} {expected}");
                prop_assert!(value > -1e-6);
                let gradient = read(chunk.logit_gradient(probabilities));
                for (token, gradient) in gradient.into_iter().enumerate() {
                    let moved = |by: f32| {
                        let mut logits = model.clone();
                        logits[token] += by;
                        naive(divergence, &exact_softmax(&logits), &q)
                    };
                    // The steps are powers of two, which move an f32 by what they say.
                    let step = 1.0 / 256.0;
                    let by = f64::from((model[token] + step) - (model[token] - step));
                    let expected = (moved(step) - moved(-step)) / by;
                    prop_assert!((gradient - expected).abs() < 2e-4, "{divergence:?}: {gradient} {expected}");
                }
            }
        }
    }

    #[test]
    fn equal_distributions_are_at_no_distance() {
        let logits = tensor(&[1.0, -2.0, 0.5, 3.0, 3.0, -9.0], 2);
        for divergence in all() {
            let chunk = divergence.between(distributions(&logits), distributions(&logits));
            assert!(read(chunk.values.clone()).iter().all(|value| value.abs() < 1e-6), "{divergence:?}");
            assert!(read(chunk.logit_gradient(softmax(logits.clone(), 1))).iter().all(|g| g.abs() < 1e-6));
        }
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let (model, reference) = (tensor(&[200.0, 0.0, -200.0], 1), tensor(&[-200.0, 0.0, 200.0], 1));
        for divergence in all() {
            let of_model = distributions(&model);
            let probabilities = of_model.probabilities.clone();
            let chunk = divergence.between(of_model, distributions(&reference));
            let values =
                read(chunk.values.clone()).into_iter().chain(read(chunk.logit_gradient(probabilities)));
            assert!(values.into_iter().all(f64::is_finite), "{divergence:?}");
        }
    }

    #[test]
    fn a_divergence_is_read_as_it_is_written() {
        let text = r#"{"kind":"jensen_shannon"}"#;
        let read: Divergence = serde_json::from_str(text).unwrap();
        assert_eq!(read, Divergence::JensenShannon { beta: UnitInterval::new(0.5) });
        assert!(serde_json::from_str::<Divergence>(r#"{"kind":"jensen_shannon","beta":1.5}"#).is_err());
        assert!(serde_json::from_str::<Divergence>(r#"{"kind":"forward_kl","beta":0.5}"#).is_err());
    }
}
