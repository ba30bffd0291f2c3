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

use super::{GroupTrainer, micro_batch::MicroBatches};
use crate::{
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
    /// How many tokens of each pass are learnt from; `None` for all.
    pub(super) fn kept(&self) -> Option<Vec<usize>> {
        let count = |marks: &Vec<f32>| marks.iter().filter(|&&mark| mark > 0.0).count();
        Some(self.is_kept.as_ref()?.iter().map(count).collect())
    }
}

/// What tokens are chosen by, one entry a token.
struct Basis<'a> {
    log_probs: &'a [f64],
    entropies: &'a [f64],
    advantages: Vec<f64>,
}

impl<M: CausalLm> GroupTrainer<M> {
    /// Chooses tokens of an update, or of each of its passes if those are averaged.
    pub(super) fn select(&self, passes: &MicroBatches<'_>, objective: &PolicyObjective) -> Marks {
        let selection = self.config.algorithm.selection;
        if selection == TokenSelection::All {
            return Marks::default();
        }
        let (log_probs, entropies) = self.read(passes, objective);
        let seed = DropoutSeed::of(&[self.config.seed, self.learner.made(), u64::MAX]).0;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut marks, mut first) = (Vec::new(), 0);
        for scope in passes.all.chunks(passes.scope()) {
            let parts = || scope.iter().map(|pass| &pass.part);
            let experience = parts().flat_map(|part| &part.experience);
            let advantages: Vec<f64> =
                experience.flat_map(|one| one.advantages.iter().map(|&a| f64::from(a))).collect();
            let tokens = first..first + advantages.len();
            first = tokens.end;
            let basis =
                Basis { log_probs: &log_probs[tokens.clone()], entropies: &entropies[tokens], advantages };
            let mut chosen = selection.marks(&basis, &mut rng).into_iter();
            marks.extend(
                parts().map(|part| chosen.by_ref().take(part.layout.targets.len()).collect::<Vec<f32>>()),
            );
        }
        match selection {
            TokenSelection::PenalizedCovariance { .. } => Marks { is_kept: None, is_penalized: Some(marks) },
            _ => Marks { is_kept: Some(marks), is_penalized: None },
        }
    }

    /// Log-probabilities and entropies of all tokens as the update will see them.
    fn read(&self, passes: &MicroBatches<'_>, objective: &PolicyObjective) -> (Vec<f64>, Vec<f64>) {
        let scored =
            passes.all.iter().zip(0..).map(|(pass, index)| self.pass(&pass.part, index, objective).scores());
        let (log_probs, entropies): (Vec<_>, Vec<_>) =
            scored.map(|scores| (plain(scores.log_probs.values), plain(scores.entropies))).unzip();
        let values: Vec<f64> =
            Tensor::cat([log_probs, entropies].concat(), 0).into_data().iter::<f64>().collect();
        let (log_probs, entropies) = values.split_at(values.len() / 2);
        (log_probs.to_vec(), entropies.to_vec())
    }
}

impl TokenSelection {
    /// 1 for tokens that are chosen.
    fn marks(&self, basis: &Basis<'_>, rng: &mut ChaCha8Rng) -> Vec<f32> {
        match *self {
            Self::All => vec![1.0; basis.advantages.len()],
            Self::TopEntropy { share } => {
                let border =
                    quantile(basis.entropies, UnitInterval::new(1.0 - share.get())).unwrap_or_default();
                basis.entropies.iter().map(|&entropy| f32::from(u8::from(entropy >= border))).collect()
            }
            Self::ClippedCovariance { share, range } => {
                clip_cov_mask(&basis.advantages, basis.log_probs, range, share, rng)
            }
            Self::PenalizedCovariance { share } => kl_cov_mask(&basis.advantages, basis.log_probs, share),
        }
    }
}
