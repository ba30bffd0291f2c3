//! Which tokens of an update are learnt from.

use align_model::{
    causal_lm::{CausalLm, DropoutSeed},
    logprob::plain,
    number::{PositiveUnit, UnitInterval},
};
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::GroupTrainer;
use crate::{
    experience::Part,
    loss::{CovarianceRange, clip_cov_mask, kl_cov_mask, quantile},
    objective::PolicyObjective,
};

/// Which tokens of an update are learnt from. What is chosen by entropy or covariance is chosen among all tokens of the
/// update, which costs a further forward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenSelection {
    /// All.
    #[default]
    All,
    /// Those where the policy is least sure: TRL's `top_entropy_quantile`. Wang et al. 2025,
    /// [arXiv:2506.01939](https://arxiv.org/abs/2506.01939), with a share of 0.2.
    TopEntropy {
        /// Of all tokens.
        share: PositiveUnit,
    },
    /// All but a few whose probability and advantage go together: Clip-Cov. See [`clip_cov_mask`].
    ClippedCovariance {
        /// Of all tokens, that are left out. 2·10⁻⁴ in the paper.
        share: PositiveUnit,
        /// Covariances that may be left out.
        #[serde(default)]
        range: CovarianceRange,
    },
    /// All, and those whose probability and advantage go together most pay for moving: KL-Cov. See [`kl_cov_mask`].
    PenalizedCovariance {
        /// Of all tokens, that pay. 2·10⁻⁴ in the paper.
        share: PositiveUnit,
    },
}

/// Marks of an update's tokens, pass after pass. `[targets]` each
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// 1 for tokens that are learnt from.
    pub(super) is_kept: Option<Vec<Vec<f32>>>,
    /// 1 for tokens that pay for moving.
    pub(super) is_penalized: Option<Vec<Vec<f32>>>,
}

impl Marks {
    /// How many tokens are learnt from, of `all`.
    pub(super) fn kept(&self, all: usize) -> usize {
        let count = |marks: &Vec<Vec<f32>>| marks.iter().flatten().filter(|&&mark| mark > 0.0).count();
        self.is_kept.as_ref().map_or(all, count)
    }
}

impl<M: CausalLm> GroupTrainer<M> {
    /// Chooses tokens of an update that is laid out in `parts`.
    pub(super) fn select(&self, parts: &[Part<'_>], objective: &PolicyObjective) -> Marks {
        let share = match self.config.algorithm.selection {
            TokenSelection::All => return Marks::default(),
            TokenSelection::TopEntropy { share }
            | TokenSelection::ClippedCovariance { share, .. }
            | TokenSelection::PenalizedCovariance { share } => share,
        };
        let (log_probs, entropies) = self.read(parts, objective);
        let experience = parts.iter().flat_map(|part| &part.experience);
        let advantages: Vec<f64> =
            experience.flat_map(|one| one.advantages.iter().map(|&a| f64::from(a))).collect();
        let by_part = |marks: Vec<f32>| {
            let mut marks = marks.into_iter();
            parts.iter().map(|part| marks.by_ref().take(part.layout.targets.len()).collect()).collect()
        };
        match self.config.algorithm.selection {
            TokenSelection::All => Marks::default(),
            TokenSelection::TopEntropy { .. } => {
                let border = quantile(&entropies, UnitInterval::new(1.0 - share.get())).unwrap_or_default();
                let marks = entropies.iter().map(|&entropy| f32::from(u8::from(entropy >= border)));
                Marks { is_kept: Some(by_part(marks.collect())), is_penalized: None }
            }
            TokenSelection::ClippedCovariance { range, .. } => {
                let seed = DropoutSeed::of(&[self.config.seed, self.learner.made(), u64::MAX]).0;
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let marks = clip_cov_mask(&advantages, &log_probs, range, share, &mut rng);
                Marks { is_kept: Some(by_part(marks)), is_penalized: None }
            }
            TokenSelection::PenalizedCovariance { .. } => {
                let marks = kl_cov_mask(&advantages, &log_probs, share);
                Marks { is_kept: None, is_penalized: Some(by_part(marks)) }
            }
        }
    }

    /// Log-probabilities and entropies of all tokens as the update will see them.
    fn read(&self, parts: &[Part<'_>], objective: &PolicyObjective) -> (Vec<f64>, Vec<f64>) {
        let scored = parts.iter().zip(0..).map(|(part, index)| self.pass(part, index, objective).scores());
        let (log_probs, entropies): (Vec<_>, Vec<_>) =
            scored.map(|scores| (plain(scores.log_probs.values), plain(scores.entropies))).unzip();
        let values: Vec<f64> =
            Tensor::cat([log_probs, entropies].concat(), 0).into_data().iter::<f64>().collect();
        let (log_probs, entropies) = values.split_at(values.len() / 2);
        (log_probs.to_vec(), entropies.to_vec())
    }
}
