//! What a model makes of pairs that it is not trained on.

use align_model::{causal_lm::CausalLm, logprob::LogProbPass, preference::PreferenceExample};

use super::{DpoTrainer, measure::Measured};
use crate::{config::PairWeighting, error::PreferenceError, report::PreferenceReport};

impl<M: CausalLm> DpoTrainer<M> {
    /// Measures a model against the trainer's reference, without gradients: the trainer's own, or an average of it.
    ///
    /// The loss is the mean over all pairs, however many forward passes they are cut into; of a loss that couples pairs,
    /// which has no term of one pair, it is the mean over forward passes. `rewards/accuracies` comes with the ends of its
    /// 95 % interval, `rewards/accuracies_low` and `rewards/accuracies_high`.
    ///
    /// # Errors
    /// If there is no pair, one is empty or does not fit the model, or the reference does not know it.
    pub fn evaluate(
        &self,
        model: &M,
        pairs: &[PreferenceExample],
    ) -> Result<PreferenceReport, PreferenceError> {
        self.check(pairs)?;
        let (settings, model) = (&self.settings, model.valid());
        let mut measured = Measured::default();
        for (index, pairs_here) in pairs.chunks(settings.micro_batch_size).enumerate() {
            let part = self.part(pairs_here, index as u64)?;
            let pass = LogProbPass::forward(&model, &part.layout.batch, &part.layout.targets);
            let pass = match settings.weighting {
                PairWeighting::Policy => pass.with_collisions(),
                PairWeighting::Equal => pass,
            };
            let scores = pass.scores();
            let of_pairs = self.pair_scores(&part, &scores);
            let loss = if settings.objective.couples_pairs() {
                let share = pairs_here.len() as f64 / pairs.len() as f64;
                settings.objective.share(&of_pairs, settings.totals(pairs_here)) * share
            } else {
                settings.objective.share(&of_pairs, settings.totals(pairs))
            };
            measured.losses.push(loss);
            measured.add(&part.layout, &scores, &of_pairs);
        }
        let report = measured.read().report(&settings.objective, pairs, self.tokens_seen, None);
        Ok(report.with_interval(pairs.len()))
    }
}
