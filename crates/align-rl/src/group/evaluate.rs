//! What a policy is worth on prompts that it is not trained on.

use align_model::{causal_lm::IncrementalLm, tokenizer::Tokenizer};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use crate::{
    error::RlError,
    experience::{Experience, read_log_probs},
    rollout::{PromptExample, RolloutConfig},
    scoring::{Rewards, ScoredRollouts, mean_and_deviation},
};

/// Trajectories that a reference scores at once.
const AT_ONCE: usize = 8;

/// Prompts that nothing is trained on, and how they are answered.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut<'a> {
    /// The prompts.
    pub prompts: &'a [PromptExample],
    /// How they are continued.
    pub rollout: &'a RolloutConfig,
    /// Seed of the sampling: evaluations with the same seed draw the same random numbers.
    pub seed: u64,
    /// The model's tokenizer; without one a text is the numbers of its tokens.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyEvaluation {
    /// The completions and their scores.
    pub scored: ScoredRollouts,
    /// `Σ_t log π − log π_ref` of a completion, the mean over all, in nats; where a reference was given.
    pub kl: Option<f64>,
}

/// A mean and how certain it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanReward {
    /// The mean over prompts of each prompt's mean.
    pub mean: f64,
    /// Its standard error, from how far prompts differ.
    pub standard_error: f64,
    /// Half the width of the 95 % confidence interval, by Student's t.
    pub margin: f64,
    /// Prompts with a score.
    pub prompts: usize,
}

impl MeanReward {
    /// Of prompts with these means; `None` of no prompts.
    pub(crate) fn over(means: &[f64]) -> Option<Self> {
        let (mean, deviation) = mean_and_deviation(means)?;
        let prompts = means.len();
        let standard_error = deviation / (prompts as f64).sqrt();
        Some(Self { mean, standard_error, margin: half_width(standard_error, prompts), prompts })
    }
}

/// Half the width of a 95 % confidence interval, by Student's t, from a standard error and the number of draws behind it.
pub(crate) fn half_width(standard_error: f64, draws: usize) -> f64 {
    let t = StudentsT::new(0.0, 1.0, (draws.max(2) - 1) as f64);
    t.map_or(1.96, |t| t.inverse_cdf(0.975)) * standard_error
}

impl HeldOut<'_> {
    /// Answers the prompts and scores the answers.
    ///
    /// # Errors
    /// If completions cannot be sampled, or a reward fails.
    pub fn evaluate<M: IncrementalLm>(
        &self,
        policy: &M,
        reference: Option<&M>,
        rewards: &mut Rewards,
    ) -> Result<PolicyEvaluation, RlError> {
        let rollout = (self.rollout, self.seed, 0);
        let scored = ScoredRollouts::sample(policy, rewards, self.prompts, rollout, self.tokenizer)?;
        let kl = reference.map(|reference| self.divergence(&scored, reference));
        Ok(PolicyEvaluation { scored, kl })
    }

    fn divergence<M: IncrementalLm>(&self, scored: &ScoredRollouts, reference: &M) -> f64 {
        let of_one = |trajectory: &crate::Trajectory| Experience::new(trajectory.clone(), 0.0);
        let experience: Vec<Experience> =
            scored.samples.iter().map(|sample| of_one(&sample.trajectory)).collect();
        let of_reference = read_log_probs(&experience, AT_ONCE, self.rollout.temperature(), reference);
        let differences = experience.iter().zip(&of_reference).map(|(one, reference)| {
            let both = one.trajectory.sampling_log_probs.iter().zip(reference);
            both.map(|(&policy, &reference)| f64::from(policy) - f64::from(reference)).sum::<f64>()
        });
        differences.sum::<f64>() / experience.len().max(1) as f64
    }
}

impl PolicyEvaluation {
    /// The mean reward; `None` if nothing was scored.
    #[must_use]
    pub fn reward(&self) -> Option<MeanReward> {
        let values = self.scored.scores.values();
        let of_group = |group: std::ops::Range<usize>| {
            let scored: Vec<f64> = values[group].iter().copied().flatten().collect();
            mean_and_deviation(&scored).map(|(mean, _)| mean)
        };
        let means: Vec<f64> = self.scored.groups().into_iter().filter_map(of_group).collect();
        MeanReward::over(&means)
    }

    /// What is logged of it: the mean reward with its interval, the divergence, and what completions are like.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics: Vec<(String, f64)> =
            self.scored.metrics().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(MeanReward { mean, margin, .. }) = self.reward() {
            metrics.retain(|(name, _)| name != "reward");
            metrics.push(("reward".into(), mean));
            metrics.push(("reward_margin".into(), margin));
        }
        metrics.extend(self.scored.scores.named_metrics());
        metrics.extend(self.kl.map(|kl| ("kl".to_owned(), kl)));
        metrics
    }
}
