//! Algorithms by name: an objective and where its advantages come from.

use std::num::NonZeroUsize;

use align_model::number::{NonNegative, Positive, UnitInterval};
use serde::{Deserialize, Serialize};

use super::PolicyObjective;
use crate::loss::{
    AdvantageEstimator, AdvantageScale, Aggregation, CispoBounds, GammaShape, Population, RatioLevel,
    Surrogate, Whitening,
};

/// An algorithm by its name. Each has an objective and an estimator of advantages; everything can be spelled out instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Group-relative policy optimisation: [`PolicyObjective::grpo`].
    Grpo,
    /// GRPO without its biases of length and difficulty: [`PolicyObjective::dr_grpo`].
    DrGrpo,
    /// GRPO with clip-higher and a mean over tokens: [`PolicyObjective::dapo`].
    Dapo,
    /// GRPO with a mean over tokens, scores divided by the batch's deviation: [`PolicyObjective::bnpo`].
    Bnpo,
    /// One ratio a sequence: [`PolicyObjective::gspo`].
    Gspo,
    /// The value of GSPO with gradients of tokens: [`PolicyObjective::gspo_token`].
    GspoToken,
    /// Clipped weights instead of clipped updates: [`PolicyObjective::cispo`].
    Cispo,
    /// A soft gate: [`PolicyObjective::sapo`].
    Sapo,
    /// A smooth weight of whole sequences: [`PolicyObjective::vespo`].
    Vespo,
    /// GSPO whose sequences weigh what their tokens do: [`PolicyObjective::luspo`].
    Luspo,
    /// Geometric means of ratios: [`PolicyObjective::gmpo`].
    Gmpo,
    /// Leave-one-out: [`PolicyObjective::rloo`].
    Rloo,
    /// REINFORCE with PPO's clip and advantages that are white over the batch: [`PolicyObjective::reinforce_plus_plus`].
    ReinforcePlusPlus,
    /// The same with the group's mean as a baseline.
    ReinforcePlusPlusBaseline,
    /// REINFORCE less the score of the greedy response: [`PolicyObjective::reinforce`].
    #[serde(alias = "remax")]
    ReMax,
    /// REINFORCE less the length-weighted mean: [`PolicyObjective::reinforce`].
    Opo,
    /// DAPO's objective with rewards that are normalised one by one.
    Gdpo,
    /// The policy gradient with a price on tokens of high covariance: [`PolicyObjective::kl_cov`].
    KlCov,
}

impl Preset {
    /// Its objective. `max_completion_length` is what Dr. GRPO divides by.
    #[must_use]
    pub fn objective(self, max_completion_length: NonZeroUsize) -> PolicyObjective {
        match self {
            Self::Grpo => PolicyObjective::grpo(),
            Self::DrGrpo => PolicyObjective::dr_grpo(max_completion_length),
            Self::Dapo | Self::Gdpo => PolicyObjective::dapo(),
            Self::Bnpo => PolicyObjective::bnpo(),
            Self::Gspo => PolicyObjective::gspo(),
            Self::GspoToken => PolicyObjective::gspo_token(),
            Self::Cispo => PolicyObjective::cispo(),
            Self::Sapo => PolicyObjective::sapo(),
            Self::Vespo => PolicyObjective::vespo(),
            Self::Luspo => PolicyObjective::luspo(),
            Self::Gmpo => PolicyObjective::gmpo(),
            Self::Rloo => PolicyObjective::rloo(),
            Self::ReinforcePlusPlus | Self::ReinforcePlusPlusBaseline => {
                PolicyObjective::reinforce_plus_plus()
            }
            Self::ReMax | Self::Opo => PolicyObjective::reinforce(),
            Self::KlCov => PolicyObjective::kl_cov(),
        }
    }

    /// Where its advantages come from.
    #[must_use]
    pub fn advantages(self) -> AdvantageEstimator {
        let whitening = Whitening::default();
        match self {
            Self::DrGrpo => AdvantageEstimator::group(AdvantageScale::None),
            Self::Bnpo => AdvantageEstimator::group(AdvantageScale::Batch),
            Self::Rloo => AdvantageEstimator::leave_one_out(),
            Self::ReinforcePlusPlus => {
                AdvantageEstimator::ReinforcePlusPlus { discount: UnitInterval::new(1.0), whitening }
            }
            Self::ReinforcePlusPlusBaseline => AdvantageEstimator::ReinforcePlusPlusBaseline { whitening },
            Self::ReMax => AdvantageEstimator::ReMax { discount: UnitInterval::new(1.0) },
            Self::Opo => AdvantageEstimator::Opo {},
            Self::Gdpo => AdvantageEstimator::Gdpo {
                epsilon: NonNegative::new(1e-4),
                population: Population::Sequences,
            },
            _ => AdvantageEstimator::group(AdvantageScale::Group),
        }
    }
}

/// Presets. None of them holds the policy to a reference, as in TRL; the papers' coefficients are in their documentation.
impl PolicyObjective {
    /// GRPO ([arXiv:2402.03300](https://arxiv.org/abs/2402.03300)): token ratios clipped at ±0.2, the mean of sequence means.
    /// The paper adds `k3` with a coefficient of 0.04.
    #[must_use]
    pub fn grpo() -> Self {
        Self { aggregation: Aggregation::SequenceMean {}, ..Self::clipped(0.2, 0.2) }
    }

    /// Dr. GRPO ([arXiv:2503.20783](https://arxiv.org/abs/2503.20783)): sums over sequences divided by a constant length. Its
    /// advantages are not divided by a deviation.
    #[must_use]
    pub fn dr_grpo(max_completion_length: NonZeroUsize) -> Self {
        Self { aggregation: Aggregation::FixedLength { max_completion_length }, ..Self::clipped(0.2, 0.2) }
    }

    /// DAPO ([arXiv:2503.14476](https://arxiv.org/abs/2503.14476)): clip-higher (0.2 and 0.28), the mean over tokens. The
    /// default.
    #[must_use]
    pub fn dapo() -> Self {
        Self::clipped(0.2, 0.28)
    }

    /// BNPO as in TRL: GRPO with the mean over tokens.
    #[must_use]
    pub fn bnpo() -> Self {
        Self::clipped(0.2, 0.2)
    }

    /// GSPO ([arXiv:2507.18071](https://arxiv.org/abs/2507.18071)): one ratio a sequence, clipped at 3·10⁻⁴ and 4·10⁻⁴ (§5.1).
    #[must_use]
    pub fn gspo() -> Self {
        let ratio = RatioLevel::Sequence;
        Self { ratio, aggregation: Aggregation::SequenceMean {}, ..Self::clipped(3e-4, 4e-4) }
    }

    /// GSPO-token (§4.3 of the same paper).
    #[must_use]
    pub fn gspo_token() -> Self {
        Self { ratio: RatioLevel::SequenceToken, ..Self::gspo() }
    }

    /// CISPO ([arXiv:2506.13585](https://arxiv.org/abs/2506.13585)) with weights of at most 5, as in `ScaleRL`
    /// ([arXiv:2510.13786](https://arxiv.org/abs/2510.13786)); TRL's `epsilon_high` is that bound, whose default of 0.2 would
    /// make every weight 0.2.
    #[must_use]
    pub fn cispo() -> Self {
        let bounds = CispoBounds::Absolute { upper: Positive::new(5.0) };
        Self { surrogate: Surrogate::Cispo { bounds }, ..Self::default() }
    }

    /// SAPO ([arXiv:2511.20347](https://arxiv.org/abs/2511.20347)) with temperatures of 1 and 1.05.
    #[must_use]
    pub fn sapo() -> Self {
        let surrogate = Surrogate::Sapo {
            positive_temperature: Positive::new(1.0),
            negative_temperature: Positive::new(1.05),
        };
        Self { surrogate, aggregation: Aggregation::SequenceMean {}, ..Self::default() }
    }

    /// VESPO ([arXiv:2602.10693](https://arxiv.org/abs/2602.10693)): powers 2 and 3, decays 3 and 2.
    #[must_use]
    pub fn vespo() -> Self {
        let shape = |power, decay| GammaShape { power: Positive::new(power), decay: Positive::new(decay) };
        let surrogate = Surrogate::Vespo { positive: shape(2.0, 3.0), negative: shape(3.0, 2.0) };
        Self { surrogate, ..Self::default() }
    }

    /// LUSPO ([arXiv:2602.05261](https://arxiv.org/abs/2602.05261)): GSPO whose sequences weigh what they are long, clipped at
    /// 2·10⁻³ and 2.5·10⁻³.
    #[must_use]
    pub fn luspo() -> Self {
        let ratio = RatioLevel::Sequence;
        Self { ratio, aggregation: Aggregation::SequenceSum {}, ..Self::clipped(2e-3, 2.5e-3) }
    }

    /// GMPO ([arXiv:2507.20673](https://arxiv.org/abs/2507.20673)): log-ratios clipped at ±0.4.
    #[must_use]
    pub fn gmpo() -> Self {
        let surrogate = Surrogate::GeometricMean { low: NonNegative::new(0.4), high: NonNegative::new(0.4) };
        Self { surrogate, aggregation: Aggregation::SequenceMean {}, ..Self::default() }
    }

    /// RLOO ([arXiv:2402.14740](https://arxiv.org/abs/2402.14740)) as in TRL: the ratio of whole responses' probabilities,
    /// clipped at ±0.2. TRL takes 0.05 times their summed `k1` off the scores.
    #[must_use]
    pub fn rloo() -> Self {
        let ratio = RatioLevel::SequenceSum;
        Self { ratio, aggregation: Aggregation::SequenceMean {}, ..Self::clipped(0.2, 0.2) }
    }

    /// REINFORCE++ ([arXiv:2501.03262](https://arxiv.org/abs/2501.03262)): PPO's objective; its advantages make the difference.
    #[must_use]
    pub fn reinforce_plus_plus() -> Self {
        Self::clipped(0.2, 0.2)
    }

    /// REINFORCE: `−A·log π`, the mean over tokens, for one update on what was just sampled.
    #[must_use]
    pub fn reinforce() -> Self {
        Self { surrogate: Surrogate::PolicyGradient {}, ..Self::default() }
    }

    /// PPO's policy loss: token ratios clipped at `±range`, the mean over tokens.
    #[must_use]
    pub fn ppo(range: NonNegative) -> Self {
        Self { surrogate: Surrogate::Clipped { low: range, high: range, ceiling: None }, ..Self::default() }
    }

    /// KL-Cov ([arXiv:2505.22617](https://arxiv.org/abs/2505.22617)); which tokens pay is an
    /// [input](crate::PolicyTokens::is_penalized).
    #[must_use]
    pub fn kl_cov() -> Self {
        Self { surrogate: Surrogate::KlCov { coefficient: NonNegative::new(1.0) }, ..Self::default() }
    }

    fn clipped(low: f64, high: f64) -> Self {
        let (low, high) = (NonNegative::new(low), NonNegative::new(high));
        Self { surrogate: Surrogate::Clipped { low, high, ceiling: None }, ..Self::default() }
    }
}
