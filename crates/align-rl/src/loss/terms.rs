//! The losses behind [`Surrogate`](super::Surrogate): one term an action token.
//!
//! Advantages may differ from token to token. Nothing is reduced, and nothing overflows: ratios are finite.

use align_model::{
    logprob::like,
    number::{NonNegative, Positive},
};
use burn::tensor::{Tensor, activation::sigmoid};
use serde::{Deserialize, Serialize};

use super::{ratio::bounded_exp, sequences::Sequences};

/// The smallest and the largest logarithm of a ratio that VESPO looks at: those of 10⁻⁸ and of e²⁰.
const VESPO_LOGARITHMS: (f64, f64) = (-18.420_680_743_952_367, 20.0);

/// The clipped surrogate of PPO, of tokens or of sequences.
///
/// ```text
/// L = −min(min(w, ceiling)·A, clip(w, 1 − low, 1 + high)·A)
/// ```
///
/// Where the advantage is negative nothing but the ceiling bounds a ratio from above: it is TRL's `delta` (two-sided clipping,
/// INTELLECT-2) and the `c` of dual-clip PPO, which are the same above `1 + high`.
///
/// # Source
/// Schulman et al. 2017, [arXiv:1707.06347](https://arxiv.org/abs/1707.06347), Eq. 7; `low ≠ high`: Yu et al. 2025 (DAPO),
/// [arXiv:2503.14476](https://arxiv.org/abs/2503.14476), Eq. 10; ceiling: Ye et al. 2019,
/// [arXiv:1912.09729](https://arxiv.org/abs/1912.09729), Eq. 5.
///
/// # Shapes
/// - `ratios`, `advantages`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `ratios` where they are not clipped.
#[must_use]
pub fn clipped_loss(
    ratios: Tensor<1>,
    advantages: Tensor<1>,
    low: NonNegative,
    high: NonNegative,
    ceiling: Option<Positive>,
) -> Tensor<1> {
    let clipped = ratios.clone().clamp(1.0 - low.get(), 1.0 + high.get()) * advantages.clone();
    let bounded = match ceiling {
        Some(ceiling) => ratios.clamp_max(ceiling.get()),
        None => ratios,
    };
    let raw = bounded * advantages;
    let is_clipped = clipped.clone().lower(raw.clone());
    -raw.mask_where(is_clipped, clipped)
}

/// Where CISPO clips a ratio. Libraries give the bounds in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CispoBounds {
    /// `w ≤ upper`: TRL, whose `epsilon_high` is the bound itself.
    Absolute {
        /// The greatest ratio.
        upper: Positive,
    },
    /// `1 − low ≤ w ≤ 1 + high`: verl, and without a lower bound the paper.
    Relative {
        /// How far a ratio may fall; as far as it will unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        low: Option<NonNegative>,
        /// How far a ratio may rise.
        high: NonNegative,
    },
}

impl CispoBounds {
    /// The smallest ratio, if there is one.
    #[must_use]
    pub fn lower(self) -> Option<f64> {
        match self {
            Self::Absolute { .. } => None,
            Self::Relative { low, .. } => low.map(|low| 1.0 - low.get()),
        }
    }

    /// The greatest ratio.
    #[must_use]
    pub fn upper(self) -> f64 {
        match self {
            Self::Absolute { upper } => upper.get(),
            Self::Relative { high, .. } => 1.0 + high.get(),
        }
    }
}

/// Clipped importance-sampling policy optimisation: the weight is clipped, not the update, so that no token falls silent.
///
/// ```text
/// L = −sg(clip(w, lower, upper))·A·log π
/// ```
///
/// # Source
/// `MiniMax` 2025, *MiniMax-M1*, [arXiv:2506.13585](https://arxiv.org/abs/2506.13585), Eq. 4.
///
/// # Shapes
/// - `log_probs`, `ratios`, `advantages`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs` only.
#[must_use]
pub fn cispo_loss(
    log_probs: Tensor<1>,
    ratios: Tensor<1>,
    advantages: Tensor<1>,
    bounds: CispoBounds,
) -> Tensor<1> {
    let mut weights = ratios.detach().clamp_max(bounds.upper());
    if let Some(lower) = bounds.lower() {
        weights = weights.clamp_min(lower);
    }
    policy_gradient_loss(log_probs, weights * advantages)
}

/// Soft adaptive policy optimisation: a smooth gate that closes as a ratio leaves 1.
///
/// ```text
/// L = −(4/τ)·σ(τ·(w − 1))·A        τ = positive_temperature where A > 0, else negative_temperature
/// ```
///
/// # Source
/// Gao et al. 2025, [arXiv:2511.20347](https://arxiv.org/abs/2511.20347).
///
/// # Shapes
/// - `ratios`, `advantages`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `ratios`; at 1 it is that of the ratio itself.
#[must_use]
pub fn sapo_loss(
    ratios: Tensor<1>,
    advantages: Tensor<1>,
    positive_temperature: Positive,
    negative_temperature: Positive,
) -> Tensor<1> {
    let is_positive = advantages.clone().greater_scalar(0.0);
    let temperatures = advantages
        .full_like(negative_temperature.get())
        .mask_where(is_positive, advantages.full_like(positive_temperature.get()));
    let gates = sigmoid(temperatures.clone() * (ratios - 1.0)) * 4.0 / temperatures;
    -gates * advantages
}

/// The two numbers of VESPO's weight `φ(W) = W^power·e^(decay·(1 − W))`, which is 1 at 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GammaShape {
    /// The exponent of the ratio, TRL's `k`.
    pub power: Positive,
    /// How fast large ratios are suppressed, TRL's `lambda`.
    pub decay: Positive,
}

/// The weights of variational sequence-level soft policy optimisation.
///
/// ```text
/// L = −φ(W)·A·log π        φ(W) = W^k·e^(λ·(1 − W))        log W = Σ_t (clip(x_t, ±20) + log ρ_t)
/// ```
///
/// with `log W` between the logarithm of 10⁻⁸ and 20, `x` the log-ratios and `ρ` the weights that correct for another
/// sampler.
///
/// # Source
/// Shen et al. 2026, [arXiv:2602.10693](https://arxiv.org/abs/2602.10693), §3.4.
///
/// # Shapes
/// - `log_ratios`, `importance`, `advantages`: `[targets]`, sequence after sequence, `counts` of them each
/// - result: `[targets]`; a sequence's weight stands at each of its tokens
///
/// # Gradient
/// None.
#[must_use]
pub fn vespo_weights(
    log_ratios: Tensor<1>,
    importance: Option<Tensor<1>>,
    advantages: Tensor<1>,
    [positive, negative]: [GammaShape; 2],
    counts: &[usize],
) -> Tensor<1> {
    let (least, most) = VESPO_LOGARITHMS;
    let sequences = Sequences::new(counts, &log_ratios);
    let mut logarithms = log_ratios.detach().clamp(-most, most);
    if let Some(importance) = importance {
        logarithms = logarithms + importance.detach().log().clamp(least, most);
    }
    let logarithms = sequences.spread_sum(logarithms).clamp(least, most);
    let ratios = logarithms.clone().exp();
    let phi = |shape: GammaShape| {
        (logarithms.clone() * shape.power.get() - (ratios.clone() - 1.0) * shape.decay.get()).exp()
    };
    let is_negative = advantages.lower_scalar(0.0);
    phi(positive).mask_where(is_negative, phi(negative))
}

/// Geometric-mean policy optimisation: one ratio a sequence, made of log-ratios that are clipped on the side to which the
/// advantage pushes them.
///
/// ```text
/// L = −A·exp(mean_t c_t)        c_t = min(x_t, clip(x_t, −low, high)) where A > 0, else max(x_t, clip(x_t, −low, high))
/// ```
///
/// # Source
/// Zhao et al. 2025, [arXiv:2507.20673](https://arxiv.org/abs/2507.20673), Eq. 4; range `[−low, high]` of the logarithm.
///
/// # Shapes
/// - `log_ratios`, `advantages`, `is_kept`: `[targets]`, sequence after sequence, `counts` of them each
/// - result: `[targets]`; a sequence's term stands at each of its tokens, so that the mean of a sequence is its term. The
///   geometric mean is over tokens that are kept
///
/// # Gradient
/// Flows through `log_ratios` where they are not clipped.
#[must_use]
pub fn gmpo_loss(
    log_ratios: Tensor<1>,
    advantages: Tensor<1>,
    [low, high]: [NonNegative; 2],
    is_kept: Option<Tensor<1>>,
    counts: &[usize],
) -> Tensor<1> {
    let sequences = Sequences::new(counts, &log_ratios);
    let is_positive = advantages.clone().greater_scalar(0.0);
    let falling = log_ratios.clone().clamp_min(-low.get());
    let clipped = falling.mask_where(is_positive, log_ratios.clamp_max(high.get()));
    let mean = match is_kept {
        Some(kept) => {
            let kept = like(kept, &clipped);
            sequences.spread_mean_of(clipped, kept)
        }
        None => sequences.spread_mean(clipped),
    };
    -bounded_exp(mean) * advantages
}

/// REINFORCE: the gradient of the expected return, for data that the policy itself has just sampled.
///
/// ```text
/// L = −A·log π
/// ```
///
/// # Source
/// Williams 1992, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, as in
/// Ahmadian et al. 2024, [arXiv:2402.14740](https://arxiv.org/abs/2402.14740), Eq. 5.
///
/// # Shapes
/// - `log_probs`, `advantages`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs` only.
#[must_use]
pub fn policy_gradient_loss(log_probs: Tensor<1>, advantages: Tensor<1>) -> Tensor<1> {
    -log_probs * advantages.detach()
}

/// The policy gradient with a price on moving at tokens whose covariance of probability and advantage would cost entropy.
///
/// ```text
/// L = −w·A + coefficient·|x|·penalised
/// ```
///
/// # Source
/// Cui et al. 2025, *The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models*,
/// [arXiv:2505.22617](https://arxiv.org/abs/2505.22617) (KL-Cov).
///
/// # Shapes
/// - `ratios`, `log_ratios`, `advantages`, `is_penalized`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `ratios` and `log_ratios`.
#[must_use]
pub fn kl_cov_loss(
    ratios: Tensor<1>,
    log_ratios: Tensor<1>,
    advantages: Tensor<1>,
    is_penalized: Option<Tensor<1>>,
    coefficient: NonNegative,
) -> Tensor<1> {
    let terms = -ratios * advantages;
    match is_penalized {
        Some(penalized) => {
            let penalized = like(penalized, &terms);
            terms + log_ratios.abs() * penalized * coefficient.get()
        }
        None => terms,
    }
}

/// Divergence proximal policy optimisation with a binary total variation: a token falls silent once its probability, not its
/// ratio, has changed too much in the direction of its advantage, so that rare tokens may still become likelier.
///
/// ```text
/// L = −sg(min(e^x, ceiling))·A·log π·valid        valid = π − π_old ≤ high where A > 0, else π − π_old ≥ −low
/// ```
///
/// # Source
/// Qi et al. 2026, [arXiv:2602.04879](https://arxiv.org/abs/2602.04879) (`Binary-TV`).
///
/// # Shapes
/// - `log_probs`, `log_ratios`, `advantages`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs` where the probability is in its range.
#[must_use]
pub fn dppo_loss(
    log_probs: Tensor<1>,
    log_ratios: Tensor<1>,
    advantages: Tensor<1>,
    [low, high]: [NonNegative; 2],
    ceiling: Positive,
) -> Tensor<1> {
    let changes = probability_changes(&log_probs, &log_ratios);
    let weights = bounded_exp(log_ratios.detach()).clamp_max(ceiling.get());
    let has_risen = changes.clone().greater_scalar(high.get());
    let has_fallen = changes.lower_scalar(-low.get());
    let is_positive = advantages.clone().greater_scalar(0.0);
    let is_out = has_risen.bool_and(is_positive.clone()).bool_or(has_fallen.bool_and(is_positive.bool_not()));
    policy_gradient_loss(log_probs, (weights * advantages).mask_fill(is_out, 0.0))
}

/// `π − π_old`, without a graph. `[targets]`
pub(crate) fn probability_changes(log_probs: &Tensor<1>, log_ratios: &Tensor<1>) -> Tensor<1> {
    let (log_probs, log_ratios) = (log_probs.clone().detach(), log_ratios.clone().detach());
    log_probs.clone().exp() - (log_probs - log_ratios).exp()
}

/// Direct reward optimisation with a given advantage: a policy gradient that is held to the sampler by a square.
///
/// ```text
/// L = −(A·log π − ½·β·x²)
/// ```
///
/// # Source
/// Richemond et al. 2024, [arXiv:2405.19107](https://arxiv.org/abs/2405.19107), token by token as in verl.
///
/// # Shapes
/// - `log_probs`, `log_ratios`, `advantages`, result: `[targets]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_probs` and `log_ratios`.
#[must_use]
pub fn dro_loss(
    log_probs: Tensor<1>,
    log_ratios: Tensor<1>,
    advantages: Tensor<1>,
    beta: Positive,
) -> Tensor<1> {
    policy_gradient_loss(log_probs, advantages) + log_ratios.powi_scalar(2) * (0.5 * beta.get())
}
