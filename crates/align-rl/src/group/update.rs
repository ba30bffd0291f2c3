//! One update of the policy.

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions},
    logprob::{LogProbPass, TokenScores, like, vector},
};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};

use super::{
    GroupTrainer,
    measure::{Measured, UpdateMetrics},
    micro_batch::{MicroBatch, RolloutTotals},
};
use crate::{
    error::RlError,
    experience::{Experience, Part, check, read_log_probs},
    objective::{PolicyObjective, PolicyTokens},
    report::RlReport,
};

impl<M: CausalLm> GroupTrainer<M> {
    /// The gradients of an update, before any clipping, and its report without what an update says. `rollouts` as for
    /// [`learn_part`](Self::learn_part).
    ///
    /// # Errors
    /// If the experience cannot be learnt from.
    pub fn gradients(
        &self,
        experience: &[Experience],
        rollouts: Option<RolloutTotals>,
    ) -> Result<(GradientsParams, RlReport), RlError> {
        let (gradients, metrics) = self.accumulate(experience, rollouts)?;
        Ok((gradients, RlReport { metrics: metrics.named(), ..RlReport::default() }))
    }

    pub(super) fn update(
        &mut self,
        experience: &[Experience],
        rollouts: Option<RolloutTotals>,
    ) -> Result<UpdateMetrics, RlError> {
        let (gradients, mut metrics) = self.accumulate(experience, rollouts)?;
        if !metrics.loss.is_finite() {
            return Err(RlError::NotFinite { loss: metrics.loss });
        }
        metrics.update = Some(self.learner.update(gradients)?);
        self.anchor.follow(self.learner.model(), self.learner.made());
        self.coefficients.follow(&mut metrics, experience.len());
        Ok(metrics)
    }

    /// Writes down what the policy says now, for later updates to be measured against.
    pub(super) fn remember_log_probs(&self, experience: &mut [Experience]) {
        let of_all = self.log_probs_of(self.model(), experience);
        for (one, log_probs) in experience.iter_mut().zip(of_all) {
            one.old_log_probs = (one.targets() > 0).then_some(log_probs);
        }
    }

    /// What a model says of every action that is learnt from.
    pub(super) fn log_probs_of(&self, model: &M, experience: &[Experience]) -> Vec<Vec<f32>> {
        let size = self.config.micro_batch_size.get();
        read_log_probs(experience, size, self.config.rollout.temperature(), model)
    }

    fn accumulate(
        &self,
        experience: &[Experience],
        rollouts: Option<RolloutTotals>,
    ) -> Result<(GradientsParams, UpdateMetrics), RlError> {
        check(experience, self.model().max_positions())?;
        let passes = self.cut(experience, rollouts);
        let objective = self.coefficients.applied(&self.config.algorithm.objective);
        let marks = self.select(&passes, &objective);
        let totals = passes.totals(marks.kept().as_deref());
        let (mut gradients, mut measured) = (GradientsAccumulator::new(), Measured::default());
        for (index, (MicroBatch { part, .. }, totals)) in passes.all.iter().zip(totals).enumerate() {
            let pass = self.pass(part, index as u64, &objective);
            let scores = pass.scores();
            let mut tokens = self.tokens(part, &scores, &objective);
            let device = tokens.log_probs.device();
            let of_part = |marks: &Vec<Vec<f32>>| vector(marks[index].iter().copied(), &device);
            tokens.is_kept = marks.is_kept.as_ref().map(of_part);
            tokens.is_penalized = marks.is_penalized.as_ref().map(of_part);
            let share = objective.share(&tokens, totals);
            measured.add(&scores, &share);
            gradients.accumulate(self.model(), pass.backward(share.loss, &scores));
        }
        let clips_sequences = self.config.algorithm.clips_sequences();
        Ok((gradients.grads(), measured.read(experience, &passes, clips_sequences, marks.is_kept.as_deref())))
    }

    pub(super) fn pass<'a>(
        &'a self,
        part: &'a Part<'_>,
        index: u64,
        objective: &PolicyObjective,
    ) -> LogProbPass<'a, M> {
        let dropout = Some(DropoutSeed::of(&[self.config.seed, self.learner.made(), index]));
        let options = PassOptions { recompute: self.config.recompute, dropout };
        let (batch, targets) = (&part.layout.batch, &part.layout.targets);
        let pass = LogProbPass::forward_with(self.model(), batch, targets, options);
        let pass = pass.under(part.distribution.clone());
        match self.anchor.model().filter(|_| objective.needs_divergences()) {
            Some(reference) => pass.with_reference(reference, batch),
            None => pass,
        }
    }

    /// What the objective looks at.
    fn tokens(&self, part: &Part<'_>, scores: &TokenScores, objective: &PolicyObjective) -> PolicyTokens {
        let log_probs = scores.log_probs.values.clone();
        let device = log_probs.device();
        let reference = self.anchor.model().filter(|_| objective.needs_reference());
        PolicyTokens {
            old_log_probs: old_log_probs(part, &log_probs),
            sampling_log_probs: Some(part.vector(|one| &one.trajectory.sampling_log_probs, &device)),
            reference_log_probs: reference.map(|model| like(part.log_probs(model), &log_probs)),
            divergences: scores.divergences.clone(),
            entropies: scores.entropies.clone(),
            advantages: part.vector(|one| &one.advantages, &device),
            is_kept: None,
            is_penalized: None,
            counts: part.layout.lengths(),
            log_probs,
        }
    }
}

/// What ratios are measured against: what is written down, or else what the policy says now. `[targets]`
fn old_log_probs(part: &Part<'_>, now: &Tensor<1>) -> Tensor<1> {
    let now = now.clone().detach();
    if part.experience.iter().all(|one| one.old_log_probs.is_none()) {
        return now;
    }
    let known = |one: &&Experience| match &one.old_log_probs {
        Some(log_probs) => log_probs.iter().map(|&log_prob| (log_prob, 0.0)).collect(),
        None => vec![(0.0, 1.0); one.targets()],
    };
    let (values, unknown): (Vec<f32>, Vec<f32>) = part.experience.iter().flat_map(known).unzip();
    let device = now.device();
    let values = like(vector(values, &device), &now);
    if unknown.iter().all(|&weight| weight == 0.0) { values } else { values + now * vector(unknown, &device) }
}
