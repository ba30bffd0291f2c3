//! What a model makes of judged completions that it is not trained on.

use align_model::{
    causal_lm::CausalLm,
    logprob::{LogProbPass, like, vector},
    preference::UnpairedExample,
};

use super::{KtoTrainer, measure::Measured};
use crate::{
    error::PreferenceError,
    loss::{Baseline, UnpairedLogProbs},
    report::PreferenceReport,
};

impl<M: CausalLm> KtoTrainer<M> {
    /// Measures a model against the trainer's reference, without gradients: the trainer's own, or an average of it.
    ///
    /// The loss is the mean over all examples, however many forward passes they are cut into; `kto`'s point of reference
    /// is measured on all of them, and `bco`'s is that of training.
    ///
    /// # Errors
    /// If there is no example, one is empty or does not fit the model, it is the only one that `kto` is to measure, or the
    /// reference does not know it.
    pub fn evaluate(
        &self,
        model: &M,
        examples: &[UnpairedExample],
    ) -> Result<PreferenceReport, PreferenceError> {
        self.check_each(examples)?;
        let (settings, model) = (&self.settings, model.valid());
        let mut measured = Measured::default();
        let baseline = match settings.loss.baseline() {
            Some(Baseline::Divergence) if examples.len() == 1 => return Err(PreferenceError::LonelyExample),
            Some(Baseline::Divergence) => self.divergence_of_mismatched(&model, examples)?,
            Some(Baseline::MeanReward) => vector([self.rewards.mean() as f32], &model.device()),
            None => vector([0.0], &model.device()),
        };
        if settings.loss.baseline() == Some(Baseline::Divergence) {
            measured.divergences.push(baseline.clone());
        }
        for examples_here in examples.chunks(settings.micro_batch_size) {
            let part = self.part(examples_here)?;
            let pass = LogProbPass::forward(&model, &part.layout.batch, &part.layout.targets);
            let scores = pass.scores();
            let values = &scores.log_probs.values;
            let desirable = examples_here.iter().map(|example| f32::from(u8::from(example.desirable)));
            let log_probs = UnpairedLogProbs {
                policy: part.layout.sums(values, |_, _| 1.0),
                reference: like(part.reference.clone(), values),
                desirable: vector(desirable, &values.device()),
            };
            let terms = settings.loss.per_example(&log_probs, settings.beta, like(baseline.clone(), values));
            measured.add(&part.layout, &scores, &log_probs, &(terms.sum() / examples.len() as f64));
        }
        Ok(measured.read().report(settings.beta, examples, self.tokens_seen, None))
    }
}
