//! How a policy does against its reference.

use align_model::causal_lm::{DropoutSeed, IncrementalLm};

use super::{Feedback, Judged, Judgement, OnlineError, OnlinePreferenceTrainer, half, meet, nothing_judged};
use crate::{
    report::RlReport,
    rollout::{PromptExample, RolloutConfig, sample_rollouts},
};

impl<M: IncrementalLm> OnlinePreferenceTrainer<M> {
    /// Has a model write against the trainer's reference, and says how often it wins: the trainer's own model, or an average
    /// of it. The same prompts are always completed with the same seed.
    ///
    /// `feedback` is for this alone, so that rewards which remember what they saw do not remember it in training; it may as
    /// well be better feedback than that. `win_rate` is the mean probability of being preferred over all pairs that were judged, a tie counting one half.
    ///
    /// # Errors
    /// If completions cannot be sampled or judged.
    pub fn evaluate(
        &self,
        model: &M,
        prompts: &[PromptExample],
        feedback: &mut Feedback,
    ) -> Result<RlReport, OnlineError> {
        if prompts.is_empty() {
            return Err(OnlineError::EmptyBatch);
        }
        let settings = &self.settings;
        let config = RolloutConfig { samples: half(settings.rollout.samples), ..settings.rollout.clone() };
        let seed = |author| DropoutSeed::of(&[settings.seed, u64::MAX, author]).0;
        let write = |model: &M, author| {
            sample_rollouts(model, prompts, &config, seed(author), self.tokenizer.as_ref())
        };
        let (duels, left_out) = meet(write(model, 0)?, write(self.reference(), 1)?);
        if let (Some(first), true) = (left_out.first(), duels.is_empty()) {
            return Err(OnlineError::NothingWritten { prompts: prompts.len(), why: first.why });
        }
        let penalty = settings.missing_end_penalty.map(Into::into);
        let Judged { judgements, named } = feedback.of(&duels, penalty)?;
        if let Some(reason) = nothing_judged(&judgements) {
            return Err(OnlineError::NothingJudged { pairs: duels.len(), reason });
        }
        let preferences: Vec<f64> = judgements.iter().filter_map(Judgement::preference).collect();
        let win_rate = preferences.iter().sum::<f64>() / preferences.len() as f64;
        let unjudged = judgements.len() - preferences.len();
        let metrics = vec![("win_rate", win_rate), ("pairs/unjudged", unjudged as f64)];
        Ok(RlReport { metrics, named, ..RlReport::default() })
    }
}
