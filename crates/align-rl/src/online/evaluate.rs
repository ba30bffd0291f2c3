//! How a policy does against its reference.

use align_model::causal_lm::{DropoutSeed, IncrementalLm};

use super::{
    Feedback, OnlineError, OnlinePreferenceTrainer,
    feedback::{Duel, Judged, Judgement},
    half, meet, nothing_judged,
};
use crate::{
    group::{MeanReward, PolicyEvaluation},
    report::RlReport,
    rollout::{PromptExample, RolloutConfig, Sampled, sample_rollouts},
    scoring::{RewardScores, ScoredRollouts},
};

impl<M: IncrementalLm> OnlinePreferenceTrainer<M> {
    /// Has a model write against the trainer's reference, and says how often it wins: the trainer's own model, or an average
    /// of it. The same prompts are always completed with the same seed.
    ///
    /// `feedback` is for this alone, so that rewards which remember what they saw do not remember it in training; it may as
    /// well be better feedback than that. `win_rate` is the share of pairs that the model wins, of those that were judged, a tie
    /// counting one half, and `win_rate_margin` half the width of its 95 % interval; `preference` is the mean probability
    /// that what it wrote is preferred. Where rewards judge, `reward`, `reward_margin` and what else
    /// [`PolicyEvaluation::metrics`] has are of the model alone.
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
        let Judged { judgements, scores } = feedback.of(&duels, penalty)?;
        if let Some(reason) = nothing_judged(&judgements) {
            return Err(OnlineError::NothingJudged { pairs: duels.len(), reason });
        }
        let unjudged = judgements.iter().filter(|judgement| judgement.preference().is_none()).count();
        let mut metrics = vec![("pairs/unjudged", unjudged as f64)];
        let wins = over_prompts(&duels, &judgements, Judgement::win);
        if let Some(MeanReward { mean, margin, .. }) = wins {
            metrics.extend([("win_rate", mean), ("win_rate_margin", margin)]);
        }
        let preference = over_prompts(&duels, &judgements, Judgement::preference);
        metrics.extend(preference.map(|preference| ("preference", preference.mean)));
        let named = scores.map_or_else(Vec::new, |scores| of_policy(&duels, &scores));
        Ok(RlReport { metrics, named, ..RlReport::default() })
    }
}

/// The mean over prompts of what is made of each pair that was judged.
fn over_prompts(
    duels: &[Duel],
    judgements: &[Judgement],
    value: impl Fn(&Judgement) -> Option<f64>,
) -> Option<MeanReward> {
    let groups = duels.iter().map(|duel| duel.a.trajectory.group);
    let judged = groups.zip(judgements.iter().map(value)).filter_map(|(group, value)| Some((group, value?)));
    let judged: Vec<(u64, f64)> = judged.collect();
    let of_prompt = |pairs: &[(u64, f64)]| pairs.iter().map(|pair| pair.1).sum::<f64>() / pairs.len() as f64;
    let means: Vec<f64> = judged.chunk_by(|a, b| a.0 == b.0).map(of_prompt).collect();
    MeanReward::over(&means)
}

/// What the policy's completions, the first of each duel, are like and what they got.
fn of_policy(duels: &[Duel], of_both: &RewardScores) -> Vec<(String, f64)> {
    let samples: Vec<Sampled> = duels.iter().map(|duel| duel.a.clone()).collect();
    let own = ScoredRollouts { samples, scores: of_both.every_second(), ..ScoredRollouts::default() };
    PolicyEvaluation { scored: own, kl: None }.metrics()
}
