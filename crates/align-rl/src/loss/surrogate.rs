//! What is minimised at each token, given how much more likely it became and what it was worth.

use align_model::number::{NonNegative, Positive};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::terms::{
    CispoBounds, GammaShape, cispo_loss, clipped_loss, dppo_loss, dro_loss, gmpo_loss, kl_cov_loss,
    policy_gradient_loss, probability_changes, sapo_loss, vespo_weights,
};

/// The surrogate objective of a token. Below, `w` is the ratio of its [`RatioLevel`](super::RatioLevel), `A` the advantage,
/// `π` the policy's probability of the token, and `sg` stops the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Surrogate {
    /// `−min(w·A, clip(w, 1 − low, 1 + high)·A)`: PPO, GRPO, DAPO, GSPO. See [`clipped_loss`].
    Clipped {
        /// How far a ratio may fall.
        low: NonNegative,
        /// How far a ratio may rise; DAPO's clip-higher makes it more than `low`.
        high: NonNegative,
        /// The greatest ratio that counts where the advantage is negative: TRL's `delta`, the `c` of dual-clip PPO. None
        /// unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ceiling: Option<Positive>,
    },
    /// `−sg(clip(w))·A·log π`: CISPO; a token that is clipped keeps a gradient. See [`cispo_loss`].
    Cispo {
        /// Where the ratio is clipped.
        bounds: CispoBounds,
    },
    /// `−(4/τ)·σ(τ·(w − 1))·A`: SAPO, a soft gate instead of a clip. See [`sapo_loss`].
    Sapo {
        /// `τ` where the advantage is positive.
        positive_temperature: Positive,
        /// `τ` elsewhere; a higher one closes sooner.
        negative_temperature: Positive,
    },
    /// `−sg(φ(W))·A·log π` with the whole sequence's ratio `W`: VESPO. See [`vespo_weights`].
    Vespo {
        /// `φ` where the advantage is at least 0.
        positive: GammaShape,
        /// `φ` where it is negative.
        negative: GammaShape,
    },
    /// `−A·e^(mean_t clip(x_t))`, one a sequence: GMPO. See [`gmpo_loss`].
    GeometricMean {
        /// How far a log-ratio may fall.
        low: NonNegative,
        /// How far a log-ratio may rise.
        high: NonNegative,
    },
    /// `−A·log π`: REINFORCE, for data that the policy itself has just sampled.
    PolicyGradient {},
    /// `−w·A`: nothing is clipped.
    Ratio {},
    /// `−w·A`, and `coefficient·|log π − log π_old|` at tokens that are
    /// [penalised](crate::PolicyTokens::is_penalized): KL-Cov. See [`kl_cov_loss`].
    KlCov {
        /// What the distance is multiplied by; 1 in the paper.
        coefficient: NonNegative,
    },
    /// `−sg(min(w_t, ceiling))·A·log π` while the probability has changed by no more than `low` and `high`, else 0: DPPO with a
    /// binary total variation, whose range is of probabilities instead of ratios. See [`dppo_loss`].
    Dppo {
        /// How far a probability may fall.
        low: NonNegative,
        /// How far a probability may rise.
        high: NonNegative,
        /// The greatest ratio of a token that counts; 20 unless given.
        #[serde(default = "twenty")]
        ceiling: Positive,
    },
    /// `−(A·log π − ½·β·(log π − log π_old)²)`: DRO. See [`dro_loss`].
    Dro {
        /// How strongly the policy is held to the one that sampled.
        beta: Positive,
    },
}

/// What a surrogate is a function of. Tensors are `[targets]`.
#[derive(Debug, Clone)]
pub(crate) struct SurrogateInputs<'a> {
    /// `log π`
    pub(crate) log_probs: Tensor<1>,
    /// `log π − log π_old`, token by token.
    pub(crate) log_ratios: Tensor<1>,
    /// `w`
    pub(crate) ratios: Tensor<1>,
    pub(crate) advantages: Tensor<1>,
    pub(crate) is_kept: Option<Tensor<1>>,
    pub(crate) is_penalized: Option<Tensor<1>>,
    /// Weights that correct for another sampler.
    pub(crate) importance: Option<Tensor<1>>,
    pub(crate) counts: &'a [usize],
}

/// What a surrogate says of each token. Tensors are `[targets]`; all but the terms are without a graph.
#[derive(Debug, Clone)]
pub(crate) struct SurrogateTerms {
    pub(crate) terms: Tensor<1>,
    /// 1 where the ratio fell out of its range and the advantage wants it lower, else 0.
    pub(crate) clipped_low: Tensor<1>,
    /// 1 where it rose out of it and the advantage wants it higher, else 0.
    pub(crate) clipped_high: Tensor<1>,
    /// VESPO's `φ`.
    pub(crate) gammas: Option<Tensor<1>>,
}

impl Surrogate {
    /// The terms, not yet corrected for another sampler unless [`corrects_itself`](Self::corrects_itself).
    pub(crate) fn terms(self, inputs: SurrogateInputs<'_>) -> SurrogateTerms {
        let SurrogateInputs { log_probs, log_ratios, ratios, advantages, .. } = inputs;
        let bounded = match self {
            Self::GeometricMean { .. } => log_ratios.clone(),
            Self::Dppo { .. } => probability_changes(&log_probs, &log_ratios),
            _ => ratios.clone(),
        };
        let flags = ClipFlags::new(bounded, &advantages, self.clip_range());
        let mut gammas = None;
        let terms = match self {
            Self::Clipped { low, high, ceiling } => clipped_loss(ratios, advantages, low, high, ceiling),
            Self::Cispo { bounds } => cispo_loss(log_probs, ratios, advantages, bounds),
            Self::Sapo { positive_temperature, negative_temperature } => {
                sapo_loss(ratios, advantages, positive_temperature, negative_temperature)
            }
            Self::Vespo { positive, negative } => {
                let shapes = [positive, negative];
                let phi =
                    vespo_weights(log_ratios, inputs.importance, advantages.clone(), shapes, inputs.counts);
                gammas = Some(phi.clone());
                policy_gradient_loss(log_probs, phi * advantages)
            }
            Self::GeometricMean { low, high } => {
                gmpo_loss(log_ratios, advantages, [low, high], inputs.is_kept, inputs.counts)
            }
            Self::PolicyGradient {} => policy_gradient_loss(log_probs, advantages),
            Self::Ratio {} => -ratios * advantages,
            Self::KlCov { coefficient } => {
                kl_cov_loss(ratios, log_ratios, advantages, inputs.is_penalized, coefficient)
            }
            Self::Dppo { low, high, ceiling } => {
                dppo_loss(log_probs, log_ratios, advantages, [low, high], ceiling)
            }
            Self::Dro { beta } => dro_loss(log_probs, log_ratios, advantages, beta),
        };
        SurrogateTerms { terms, clipped_low: flags.low, clipped_high: flags.high, gammas }
    }

    /// Whether weights of importance are inside its terms, instead of multiplying them.
    pub(crate) fn corrects_itself(self) -> bool {
        matches!(self, Self::Vespo { .. })
    }

    /// Whether a sequence has one term, which already leaves out tokens that are not kept.
    pub(crate) fn is_of_sequences(self) -> bool {
        matches!(self, Self::GeometricMean { .. })
    }

    /// Whether the ratio's level matters.
    pub(crate) fn reads_ratios(self) -> bool {
        match self {
            Self::Clipped { .. }
            | Self::Cispo { .. }
            | Self::Sapo { .. }
            | Self::Ratio {}
            | Self::KlCov { .. } => true,
            Self::Vespo { .. }
            | Self::GeometricMean { .. }
            | Self::PolicyGradient {}
            | Self::Dppo { .. }
            | Self::Dro { .. } => false,
        }
    }

    /// The range of a ratio, of its logarithm (GMPO) or of a probability's change (DPPO).
    fn clip_range(self) -> (Option<f64>, Option<f64>) {
        match self {
            Self::Clipped { low, high, .. } => (Some(1.0 - low.get()), Some(1.0 + high.get())),
            Self::Cispo { bounds } => (bounds.lower(), Some(bounds.upper())),
            Self::GeometricMean { low, high } | Self::Dppo { low, high, .. } => {
                (Some(-low.get()), Some(high.get()))
            }
            _ => (None, None),
        }
    }
}

impl Default for Surrogate {
    /// DAPO's: 0.2 down and 0.28 up.
    fn default() -> Self {
        Self::Clipped { low: NonNegative::new(0.2), high: NonNegative::new(0.28), ceiling: None }
    }
}

fn twenty() -> Positive {
    Positive::new(20.0)
}

/// Tokens whose ratio left its range in the direction that the advantage pushes it.
struct ClipFlags {
    low: Tensor<1>,
    high: Tensor<1>,
}

impl ClipFlags {
    fn new(ratios: Tensor<1>, advantages: &Tensor<1>, (low, high): (Option<f64>, Option<f64>)) -> Self {
        let ratios = ratios.detach();
        let none = || ratios.zeros_like();
        Self {
            low: low.map_or_else(none, |low| {
                ratios.clone().lower_scalar(low).float() * advantages.clone().lower_scalar(0.0).float()
            }),
            high: high.map_or_else(none, |high| {
                ratios.clone().greater_scalar(high).float() * advantages.clone().greater_scalar(0.0).float()
            }),
        }
    }
}
