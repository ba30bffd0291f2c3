//! Losses of single completions that are desirable or not.

use align_model::number::{NonNegative, Positive};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::stable::{log_sigmoid, sigmoid};

/// Log-probabilities of completions that are desirable or not.
#[derive(Debug, Clone)]
pub struct UnpairedLogProbs {
    /// `log π(y)`, summed over the completion. `[examples]`
    pub policy: Tensor<1>,
    /// `log π_ref(y)`, summed over the completion. `[examples]`
    pub reference: Tensor<1>,
    /// 1 where a completion is desirable, 0 where it is not. `[examples]`
    pub desirable: Tensor<1>,
}

impl UnpairedLogProbs {
    /// Log-ratios `log π(y) − log π_ref(y)`. `[examples]`
    #[must_use]
    pub fn log_ratios(&self) -> Tensor<1> {
        self.policy.clone() - self.reference.clone()
    }
}

/// How much an example of each class counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassWeights {
    /// A desirable one; 1 unless given.
    pub desirable: NonNegative,
    /// An undesirable one; 1 unless given.
    pub undesirable: NonNegative,
}

impl ClassWeights {
    /// The weight of each example.
    fn of(self, desirable: &Tensor<1>) -> Tensor<1> {
        let (good, bad) = (self.desirable.get(), self.undesirable.get());
        desirable.clone() * (good - bad) + bad
    }
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self { desirable: NonNegative::new(1.0), undesirable: NonNegative::new(1.0) }
    }
}

/// What is minimised of each completion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum UnpairedLoss {
    /// [`kto_loss`].
    Kto {
        /// How much an example of each class counts.
        #[serde(default)]
        weights: ClassWeights,
    },
    /// [`apo_zero_unpaired_loss`].
    ApoZeroUnpaired {
        /// How much an example of each class counts.
        #[serde(default)]
        weights: ClassWeights,
    },
    /// [`bco_loss`].
    Bco {},
}

/// What an [`UnpairedLoss`] measures completions against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The divergence of mismatched completions, [`kto_baseline`], one for each batch.
    Divergence,
    /// The running mean of all rewards `β·x`, a [`RunningMean`](super::RunningMean).
    MeanReward,
}

impl UnpairedLoss {
    /// One term an example; their mean is the batch's loss. `baseline` is what [`baseline`](Self::baseline) says, and has
    /// no part where that is `None`.
    ///
    /// # Shapes
    /// - `baseline`: `[1]` or `[examples]`; result: `[examples]`
    #[must_use]
    pub fn per_example(self, examples: &UnpairedLogProbs, beta: Positive, baseline: Tensor<1>) -> Tensor<1> {
        let (log_ratios, desirable) = (examples.log_ratios(), examples.desirable.clone());
        match self {
            Self::Kto { weights } => kto_loss(log_ratios, desirable, baseline, beta, weights),
            Self::ApoZeroUnpaired { weights } => apo_zero_unpaired_loss(log_ratios, desirable, beta, weights),
            Self::Bco {} => bco_loss(log_ratios, desirable, baseline, beta),
        }
    }

    /// What completions are measured against.
    #[must_use]
    pub fn baseline(self) -> Option<Baseline> {
        match self {
            Self::Kto { .. } => Some(Baseline::Divergence),
            Self::ApoZeroUnpaired { .. } => None,
            Self::Bco {} => Some(Baseline::MeanReward),
        }
    }
}

impl Default for UnpairedLoss {
    fn default() -> Self {
        Self::Kto { weights: ClassWeights::default() }
    }
}

/// Kahneman-Tversky optimisation: gains and losses against a point of reference, each with diminishing sensitivity.
///
/// ```text
/// L = w_d·(1 − σ(β·(x − z)))  of a desirable completion
/// L = w_u·(1 − σ(β·(z − x)))  of an undesirable one
/// ```
///
/// # Source
/// Ethayarajh et al. 2024, [arXiv:2402.01306](https://arxiv.org/abs/2402.01306).
///
/// # Shapes
/// - `log_ratios`, `desirable` (1 or 0), result: `[examples]`; nothing is reduced
/// - `baseline`: `[1]` or `[examples]`, z of [`kto_baseline`]
///
/// # Gradient
/// Flows through `log_ratios`; `baseline` is detached.
#[must_use]
pub fn kto_loss(
    log_ratios: Tensor<1>,
    desirable: Tensor<1>,
    baseline: Tensor<1>,
    beta: Positive,
    weights: ClassWeights,
) -> Tensor<1> {
    let gains = (log_ratios - baseline.detach()) * sign(&desirable);
    sigmoid(gains * -beta.get()) * weights.of(&desirable)
}

/// KTO's point of reference z: the divergence of the policy from its reference, estimated on completions of other
/// prompts; not below 0, and without a gradient.
///
/// ```text
/// z = max(0, mean(log π(y′) − log π_ref(y′)))
/// ```
///
/// # Source
/// Ethayarajh et al. 2024, [arXiv:2402.01306](https://arxiv.org/abs/2402.01306).
///
/// # Shapes
/// - `policy`, `reference`: `[examples]`, sums over the mismatched completions; result: `[1]`
#[must_use]
pub fn kto_baseline(policy: Tensor<1>, reference: Tensor<1>) -> Tensor<1> {
    (policy.detach() - reference.detach()).mean().clamp_min(0.0)
}

/// Anchored preference optimisation on single completions: KTO whose point of reference is 0.
///
/// ```text
/// L = w_d·(1 − σ(β·x))  of a desirable completion        L = w_u·σ(β·x)  of an undesirable one
/// ```
///
/// # Source
/// D'Oosterlinck et al. 2024, *Anchored Preference Optimization*, [arXiv:2408.06266](https://arxiv.org/abs/2408.06266),
/// Eq. 7, taken apart as in TRL,
/// [kto_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/kto_trainer.py).
///
/// # Shapes
/// - `log_ratios`, `desirable` (1 or 0), result: `[examples]`; nothing is reduced
///
/// # Gradient
/// Flows through `log_ratios`.
#[must_use]
pub fn apo_zero_unpaired_loss(
    log_ratios: Tensor<1>,
    desirable: Tensor<1>,
    beta: Positive,
    weights: ClassWeights,
) -> Tensor<1> {
    sigmoid(log_ratios * sign(&desirable) * -beta.get()) * weights.of(&desirable)
}

/// Binary classifier optimisation: completions are classified by their reward, shifted by the mean of all rewards.
///
/// ```text
/// L = −log σ(β·x − δ)  of a desirable completion        L = −log σ(δ − β·x)  of an undesirable one
/// ```
///
/// The density ratio that the paper weighs undesirable completions by where prompts differ in distribution multiplies the
/// result.
///
/// # Source
/// Jung et al. 2024, [arXiv:2404.04656](https://arxiv.org/abs/2404.04656).
///
/// # Shapes
/// - `log_ratios`, `desirable` (1 or 0), result: `[examples]`; nothing is reduced
/// - `shift`: `[1]` or `[examples]`, δ, in units of reward
///
/// # Gradient
/// Flows through `log_ratios`; `shift` is detached.
#[must_use]
pub fn bco_loss(log_ratios: Tensor<1>, desirable: Tensor<1>, shift: Tensor<1>, beta: Positive) -> Tensor<1> {
    -log_sigmoid((log_ratios * beta.get() - shift.detach()) * sign(&desirable))
}

/// 1 for desirable, −1 for undesirable.
fn sign(desirable: &Tensor<1>) -> Tensor<1> {
    desirable.clone() * 2.0 - 1.0
}
