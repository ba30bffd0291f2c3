//! How much better a response was than what could be expected, without a critic.

mod estimate;

use align_model::number::{NonNegative, UnitInterval};
use serde::{Deserialize, Serialize};

use super::whiten::Whitening;

/// Responses, in groups of one prompt each, and what was thought of them.
#[derive(Debug, Clone, Copy)]
pub struct ScoredGroups<'a> {
    /// What each reward function said of each response: `[responses][functions]`. A response without any score stays out of
    /// all statistics and has an advantage of 0; a score that is NaN or infinite counts as none.
    pub rewards: &'a [Vec<Option<f64>>],
    /// What each function's scores are multiplied by. `[functions]`
    pub weights: &'a [f64],
    /// Responses with the same number are of one group, wherever they stand. `[responses]`
    pub groups: &'a [u64],
    /// Action tokens of each response. `[responses]`
    pub counts: &'a [usize],
    /// Rewards of single tokens that are added to the score, such as `−β·(log π − log π_ref)` or those of a process.
    /// `[targets]`
    pub token_rewards: Option<&'a [f64]>,
    /// The score of the greedy response to the same prompt, for [`AdvantageEstimator::ReMax`]. `[responses]`
    pub greedy_scores: Option<&'a [f64]>,
}

/// What an estimator says of some responses.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// Of each action token. `[targets]`
    pub tokens: Vec<f64>,
    /// Of each response: the mean over its tokens where they differ. `[responses]`
    pub sequences: Vec<f64>,
    /// The weighted sum of each response's scores. `[responses]`
    pub scores: Vec<Option<f64>>,
}

/// What a difference from a group's mean is divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageScale {
    /// The group's standard deviation: GRPO.
    #[default]
    Group,
    /// The standard deviation of all scores of the batch.
    Batch,
    /// Nothing: Dr. GRPO, for which hard and easy prompts would otherwise weigh more.
    None,
}

/// Between what scores are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreRange {
    /// What lower scores count as.
    pub low: f64,
    /// What higher scores count as.
    pub high: f64,
}

/// Where advantages come from. Below, `r` is the weighted sum of a response's scores and of its tokens' rewards, `mean` and
/// `std` (with Bessel's correction) are those of its group, without responses that have no score.
///
/// A group of one, or one whose scores are all the same, has advantages of 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdvantageEstimator {
    /// `(r − mean)/(std + epsilon)`: GRPO ([arXiv:2402.03300](https://arxiv.org/abs/2402.03300)).
    Group {
        /// What the difference is divided by.
        #[serde(default)]
        scale: AdvantageScale,
        /// 10⁻⁴ unless given, as in TRL; 10⁻⁶ in verl, 10⁻⁹ in OpenRLHF.
        #[serde(default = "epsilon")]
        epsilon: NonNegative,
    },
    /// `r − mean of the others`: RLOO ([arXiv:2402.14740](https://arxiv.org/abs/2402.14740)).
    LeaveOneOut {
        /// Between what a score is kept, before its tokens' rewards are added.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        score_range: Option<ScoreRange>,
        /// Makes the mean of all advantages 0 and divides them by their standard deviation plus this. Not done unless given;
        /// 10⁻⁴ is TRL's `normalize_advantages`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        normalize_epsilon: Option<NonNegative>,
    },
    /// Discounted return-to-go, white over all tokens of the batch: REINFORCE++
    /// ([arXiv:2501.03262](https://arxiv.org/abs/2501.03262)).
    ReinforcePlusPlus {
        /// `γ`; 1 unless given.
        #[serde(default = "one")]
        discount: UnitInterval,
        /// How they are whitened.
        #[serde(default)]
        whitening: Whitening,
    },
    /// `score − mean`, plus the return-to-go of the tokens' own rewards, white over all tokens of the batch:
    /// REINFORCE++-baseline (the same paper).
    ReinforcePlusPlusBaseline {
        /// How they are whitened.
        #[serde(default)]
        whitening: Whitening,
    },
    /// Discounted return-to-go less the score of the greedy response: `ReMax`
    /// ([arXiv:2310.10505](https://arxiv.org/abs/2310.10505)).
    #[serde(alias = "remax")]
    ReMax {
        /// `γ`; 1 unless given.
        #[serde(default = "one")]
        discount: UnitInterval,
    },
    /// `r − Σ|y|·r/Σ|y|`, the baseline of least variance where a token's gradients are alike: OPO
    /// ([arXiv:2505.23585](https://arxiv.org/abs/2505.23585)).
    Opo {},
    /// Each function's scores `(r_k − mean_k)/(std_k + epsilon)`, their weighted sum, and that normalised over the batch: GDPO
    /// ([arXiv:2601.05242](https://arxiv.org/abs/2601.05242)). One function's scale cannot drown another's.
    Gdpo {
        /// 10⁻⁴ unless given, as in TRL.
        #[serde(default = "epsilon")]
        epsilon: NonNegative,
        /// What the batch's statistics are over.
        #[serde(default)]
        population: Population,
    },
    /// The best response of a group has `(r − second)/(std + epsilon)`, the others 0: for pass@k
    /// ([arXiv:2503.19595](https://arxiv.org/abs/2503.19595)).
    PassAtK {
        /// What the difference is divided by.
        #[serde(default)]
        scale: AdvantageScale,
        /// 10⁻⁴ unless given; 10⁻⁶ in verl.
        #[serde(default = "epsilon")]
        epsilon: NonNegative,
    },
}

/// What statistics of a batch are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Population {
    /// Responses, each counted once: TRL.
    #[default]
    Sequences,
    /// Tokens, so that a long response counts more: verl, as [`Whitening::Corrected`].
    Tokens,
}

impl AdvantageEstimator {
    /// GRPO's estimator with this scale.
    #[must_use]
    pub fn group(scale: AdvantageScale) -> Self {
        Self::Group { scale, epsilon: epsilon() }
    }

    /// RLOO's estimator without options.
    #[must_use]
    pub fn leave_one_out() -> Self {
        Self::LeaveOneOut { score_range: None, normalize_epsilon: None }
    }

    /// Whether greedy responses are needed.
    #[must_use]
    pub fn needs_greedy_scores(&self) -> bool {
        matches!(self, Self::ReMax { .. })
    }

    /// Whether a response is compared with others of its group: one a prompt would teach nothing.
    #[must_use]
    pub fn compares_groups(&self) -> bool {
        !matches!(self, Self::ReinforcePlusPlus { .. } | Self::ReMax { .. })
    }

    /// The advantages of some responses.
    ///
    /// # Panics
    /// If lengths do not match, or greedy scores are [needed](Self::needs_greedy_scores) and not there.
    #[must_use]
    pub fn advantages(&self, scored: &ScoredGroups<'_>) -> Advantages {
        estimate::advantages(*self, scored)
    }
}

impl Default for AdvantageEstimator {
    fn default() -> Self {
        Self::group(AdvantageScale::Group)
    }
}

fn epsilon() -> NonNegative {
    NonNegative::new(1e-4)
}

fn one() -> UnitInterval {
    UnitInterval::new(1.0)
}

#[cfg(test)]
mod tests;
