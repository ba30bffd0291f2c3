//! How far a student is from its teacher.

use align_model::{
    causal_lm::{DropoutSeed, IncrementalLm},
    logprob::LogProbPass,
};

use super::{
    DistillationError, DistillationExample, DistillationTrainer, Sequence, layout, measure::Measured,
    of_data, targets, written,
};
use crate::{
    report::RlReport,
    rollout::{PromptExample, RolloutConfig},
};

impl<M: IncrementalLm> DistillationTrainer<M> {
    /// Measures a model against the teacher on completions of the data, without gradients: the trainer's own, or an average
    /// of it. `loss` is the mean divergence of a token, of a policy gradient the reverse KL divergence, and `loss_margin`
    /// half the width of its 95 % interval.
    ///
    /// # Errors
    /// If an example has no completion or does not fit a context.
    pub fn evaluate(
        &self,
        model: &M,
        examples: &[DistillationExample],
    ) -> Result<RlReport, DistillationError> {
        self.measure(model, &of_data(examples)?)
    }

    /// The same on completions that the model writes itself, one of each prompt and with the same random numbers each time.
    ///
    /// # Errors
    /// If nothing can be written, or what was written does not fit the teacher's context.
    pub fn evaluate_own(&self, model: &M, prompts: &[PromptExample]) -> Result<RlReport, DistillationError> {
        if prompts.is_empty() {
            return Err(DistillationError::EmptyBatch);
        }
        let once = RolloutConfig { samples: std::num::NonZeroUsize::MIN, ..self.settings.rollout.clone() };
        let seed = DropoutSeed::of(&[self.settings.seed, u64::MAX]).0;
        let rollouts = written(model, prompts, &once, seed, self.tokenizer.as_ref())?;
        let left_out = rollouts.left_out.len();
        let cut = rollouts.samples.iter().filter(|sampled| sampled.trajectory.is_truncated()).count();
        let sequences: Vec<Sequence> = rollouts.samples.into_iter().map(Sequence::from).collect();
        let mut report = self.measure(model, &sequences)?;
        let count = sequences.len() as f64;
        report.metrics.extend([
            ("completions/mean_length", targets(&sequences) as f64 / count),
            ("completions/clipped_ratio", cut as f64 / count),
            ("prompts/left_out", left_out as f64),
        ]);
        Ok(report)
    }

    fn measure(&self, model: &M, sequences: &[Sequence]) -> Result<RlReport, DistillationError> {
        self.check(sequences)?;
        let model = model.valid();
        let mut measured = Measured::default();
        for here in sequences.chunks(self.settings.micro_batch_size.get()) {
            let layout = layout(here, model.shares_prompts() && self.teacher.shares_prompts());
            let pass = LogProbPass::forward(&model, &layout.batch, &layout.targets);
            let scores = self.beside_teacher(pass, &layout).scores();
            let divergences = scores.divergences.clone().unwrap_or_else(|| scores.entropies.zeros_like());
            let share = divergences.clone().sum() / targets(sequences) as f64;
            measured.add(&layout, share, divergences, &scores);
        }
        let sums = measured.read();
        let mut metrics = sums.metrics(None, self.tokens_seen);
        metrics.push(("loss_margin", sums.margin()));
        Ok(RlReport { metrics, ..RlReport::default() })
    }
}
