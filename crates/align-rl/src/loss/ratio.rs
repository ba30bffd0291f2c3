//! How much more likely the policy makes what was sampled than the policy that it was updated from.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::sequences::Sequences;

/// Log-ratios above this count as this: their exponential would soon leave what f32 can hold.
const LARGEST_EXPONENT: f64 = 80.0;

/// Over what a ratio of probabilities `π/π_old` is taken. Below, `x = log π(token) − log π_old(token)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// `w_t = e^(x_t)`: PPO ([arXiv:1707.06347](https://arxiv.org/abs/1707.06347)), GRPO.
    #[default]
    Token,
    /// `w = e^(mean_t x_t)`, one a sequence: GSPO ([arXiv:2507.18071](https://arxiv.org/abs/2507.18071)), Eq. 7.
    Sequence,
    /// The value of [`Sequence`](Self::Sequence) with the gradient of each token's own log-probability: GSPO-token, Eq. 14 of
    /// the same paper; tokens of one sequence may then have advantages of their own.
    SequenceToken,
    /// `w = e^(Σ_t x_t)`, one a sequence: RLOO as in TRL
    /// ([rloo_trainer.py](https://github.com/huggingface/trl/blob/f2cd57710/trl/trainer/rloo_trainer.py)).
    SequenceSum,
}

impl RatioLevel {
    /// The ratios at each token. Exactly 1 where the log-ratios are 0.
    ///
    /// Log-ratios are cut off at 80, beyond which a ratio has no gradient.
    ///
    /// # Shapes
    /// - `log_ratios`: `[targets]`, sequence after sequence, `counts` of them each
    /// - result: `[targets]`; a sequence's ratio stands at each of its tokens
    ///
    /// # Gradient
    /// Flows through `log_ratios`.
    #[must_use]
    pub fn ratios(self, log_ratios: Tensor<1>, counts: &[usize]) -> Tensor<1> {
        let sequences = Sequences::new(counts, &log_ratios);
        bounded_exp(self.log_weights(log_ratios, &sequences))
    }

    /// The logarithms of the ratios. `[targets]`
    pub(crate) fn log_weights(self, log_ratios: Tensor<1>, sequences: &Sequences) -> Tensor<1> {
        match self {
            Self::Token => log_ratios,
            Self::Sequence => sequences.spread_mean(log_ratios),
            Self::SequenceToken => {
                let mean = sequences.spread_mean(log_ratios.clone().detach());
                mean + (log_ratios.clone() - log_ratios.detach())
            }
            Self::SequenceSum => sequences.spread_sum(log_ratios),
        }
    }

    /// Whether a sequence has one ratio.
    #[must_use]
    pub fn is_of_sequences(self) -> bool {
        self != Self::Token
    }
}

/// `e^x`, cut off where it would overflow.
pub(crate) fn bounded_exp(x: Tensor<1>) -> Tensor<1> {
    x.clamp_max(LARGEST_EXPONENT).exp()
}
