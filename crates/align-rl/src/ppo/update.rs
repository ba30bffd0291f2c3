//! One update of policy and critic.

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions},
    logprob::{LogProbPass, TokenScores, like, vector},
    train::{UpdateError, gradient_norm},
};
use align_reward::model::{RewardModel, ScoreHead};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{IndexingUpdateOp, Int, Tensor, TensorData},
};

use super::{
    PpoTrainer, Purpose, ValueClipping, ValuedExperience,
    experience::check_values,
    measure::{Measured, UpdateMetrics},
};
use crate::{
    Trajectory,
    critic::{CriticLearner, ValueLayout, ValuePass, value_positions},
    error::RlError,
    experience::{Experience, Part, check},
    loss::{StepTotals, clipped_value_loss, value_is_clipped},
    objective::PolicyTokens,
    report::RlReport,
};

/// The gradients of an update, before any clipping.
#[derive(Debug)]
pub struct PpoGradients {
    /// Those of the policy.
    pub policy: GradientsParams,
    /// Those of the critic.
    pub critic: GradientsParams,
}

impl<M: CausalLm> PpoTrainer<M> {
    /// The gradients of an update, before any clipping, and its report without what an update says.
    ///
    /// # Errors
    /// If the experience cannot be learnt from.
    pub fn gradients(&self, experience: &[ValuedExperience]) -> Result<(PpoGradients, RlReport), RlError> {
        let all: Vec<&ValuedExperience> = experience.iter().collect();
        let (gradients, metrics) = self.measure(&all)?;
        Ok((gradients, RlReport { metrics: metrics.named(), ..RlReport::default() }))
    }

    /// The gradients of a mini-batch and what was measured on the way.
    pub(super) fn measure(
        &self,
        mini_batch: &[&ValuedExperience],
    ) -> Result<(PpoGradients, UpdateMetrics), RlError> {
        self.check(mini_batch)?;
        let kept: Vec<&ValuedExperience> =
            mini_batch.iter().copied().filter(|one| one.experience.targets() > 0).collect();
        let totals = StepTotals::new(mini_batch.len(), kept.iter().map(|one| one.experience.targets()).sum());
        let states: usize = kept.iter().map(|one| one.returns.len()).sum();
        let (mut policy, mut critic) = (GradientsAccumulator::new(), GradientsAccumulator::new());
        let mut head = GradientsAccumulator::new();
        let mut measured = Measured::default();
        for (index, some) in kept.chunks(self.config.micro_batch_size.get()).enumerate() {
            let index = index as u64;
            let (of_policy, of_head) = self.policy_part((some, index), totals, states, &mut measured);
            policy.accumulate(self.model(), of_policy);
            match &self.critic {
                CriticLearner::Separate(learner) => {
                    let of_critic = self.critic_part(learner.model(), (some, index), states, &mut measured);
                    critic.accumulate(learner.model(), of_critic);
                }
                CriticLearner::Shared(learner) => {
                    if let Some(of_head) = of_head {
                        head.accumulate(learner.model(), of_head);
                    }
                }
            }
        }
        let critic = match &self.critic {
            CriticLearner::Separate(_) => critic.grads(),
            CriticLearner::Shared(_) => head.grads(),
        };
        let gradients = PpoGradients { policy: policy.grads(), critic };
        Ok((gradients, measured.read()))
    }

    /// Makes an update, of both models or of none.
    pub(super) fn apply(
        &mut self,
        PpoGradients { mut policy, mut critic }: PpoGradients,
        mut metrics: UpdateMetrics,
    ) -> Result<UpdateMetrics, RlError> {
        metrics.check()?;
        for norm in [gradient_norm(&mut policy, self.model()), self.critic.gradient_norm(&mut critic)] {
            if !norm.is_finite() {
                return Err(UpdateError::NotFinite { norm }.into());
            }
        }
        metrics.critic_update = Some(self.critic.update(critic)?);
        metrics.policy_update = Some(self.policy.update(policy)?);
        self.anchor.follow(self.policy.model(), self.policy.made());
        Ok(metrics)
    }

    fn check(&self, mini_batch: &[&ValuedExperience]) -> Result<(), RlError> {
        check(mini_batch.iter().map(|one| &one.experience), self.limit())?;
        let trajectories: Vec<&Trajectory> =
            mini_batch.iter().map(|one| &one.experience.trajectory).collect();
        let states: Vec<usize> = trajectories.iter().map(|trajectory| self.states().of(trajectory)).collect();
        check_values(mini_batch, &states)
    }

    fn options(&self, purpose: Purpose, index: u64) -> PassOptions {
        let dropout = DropoutSeed::of(&[self.config.seed, self.policy.made(), purpose as u64, index]);
        PassOptions { recompute: self.config.recompute, dropout: Some(dropout) }
    }

    /// What some completions add to the policy's gradients, and to those of a head on it.
    fn policy_part(
        &self,
        (some, index): (&[&ValuedExperience], u64),
        totals: StepTotals,
        states: usize,
        measured: &mut Measured,
    ) -> (GradientsParams, Option<GradientsParams>) {
        let experience: Vec<&Experience> = some.iter().map(|one| &one.experience).collect();
        let part = Part::new(&experience, self.config.rollout.temperature(), self.model());
        let (batch, targets) = (&part.layout.batch, &part.layout.targets);
        let options = self.options(Purpose::PolicyDropout, index);
        let mut pass = LogProbPass::forward_with(self.model(), batch, targets, options);
        pass = pass.under(part.distribution.clone());
        if let Some(reference) = self.anchor.model().filter(|_| self.config.objective.needs_divergences()) {
            pass = pass.with_reference(reference, batch);
        }
        let mut of_head = None;
        if let CriticLearner::Shared(learner) = &self.critic {
            let trajectories: Vec<&Trajectory> = some.iter().map(|one| &one.experience.trajectory).collect();
            let positions = value_positions(&part.layout, &trajectories, self.states());
            let loss = |values| self.value_loss(values, some, states, measured);
            let (gradients, of_hidden) = head_gradients(learner.model(), &pass.hidden(), &positions, loss);
            pass = pass.with_hidden_gradient(of_hidden);
            of_head = Some(gradients);
        }
        let scores = pass.scores();
        let share = self.config.objective.share(&self.tokens(&part, &scores), totals);
        measured.add_policy(&scores, &share);
        (pass.backward(share.loss, &scores), of_head)
    }

    /// What the objective looks at.
    fn tokens(&self, part: &Part<'_>, scores: &TokenScores) -> PolicyTokens {
        let log_probs = scores.log_probs.values.clone();
        let device = log_probs.device();
        let reference = self.anchor.model().filter(|_| self.config.objective.needs_reference());
        let is_new = part.experience.iter().any(|one| one.old_log_probs.is_none());
        PolicyTokens {
            old_log_probs: if is_new { log_probs.clone().detach() } else { part.vector(old, &device) },
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

    /// What some completions add to the gradients of a critic of its own.
    fn critic_part(
        &self,
        critic: &RewardModel<M>,
        (some, index): (&[&ValuedExperience], u64),
        states: usize,
        measured: &mut Measured,
    ) -> GradientsParams {
        let trajectories: Vec<&Trajectory> = some.iter().map(|one| &one.experience.trajectory).collect();
        let layout = ValueLayout::new(&trajectories, self.states(), critic.backbone.shares_prompts());
        let pass = ValuePass::forward(critic, &layout, self.options(Purpose::CriticDropout, index));
        let loss = self.value_loss(pass.values(), some, states, measured);
        pass.backward(loss)
    }

    /// What values of some completions add to the critic's loss. `values`: `[states]`; `states` are those of the whole update.
    fn value_loss(
        &self,
        values: Tensor<1>,
        some: &[&ValuedExperience],
        states: usize,
        measured: &mut Measured,
    ) -> Tensor<1> {
        let device = values.device();
        let all = |numbers: fn(&ValuedExperience) -> &[f32]| -> Tensor<1> {
            vector(some.iter().flat_map(|one| numbers(one).iter().copied()), &device)
        };
        let (old, returns) = (all(|one| &one.old_values), all(|one| &one.returns));
        let range = match self.config.value.clipping {
            ValueClipping::Off {} => None,
            ValueClipping::Range { range } => Some(range),
        };
        let is_clipped = match range {
            Some(range) => value_is_clipped(values.clone(), old.clone(), returns.clone(), range),
            None => values.zeros_like().detach(),
        };
        let losses = clipped_value_loss(values.clone(), old, returns.clone(), range);
        measured.add_critic([&values, &returns, &losses, &is_clipped]);
        losses.sum() * (self.config.value.coefficient.get() / states as f64)
    }
}

/// What ratios are measured against, as it was written down. `[actions]`
fn old(one: &Experience) -> &[f32] {
    one.old_log_probs.as_deref().unwrap_or_default()
}

/// The gradients of a loss of what a head says at some positions: with respect to the head, and to all hidden states,
/// `[tokens, hidden]`.
fn head_gradients(
    head: &ScoreHead,
    hidden: &Tensor<2>,
    positions: &[usize],
    loss: impl FnOnce(Tensor<1>) -> Tensor<1>,
) -> (GradientsParams, Tensor<2>) {
    let count = positions.len();
    let positions: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
    let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &hidden.device());
    let leaf = Tensor::from_inner(hidden.clone().select(0, positions.clone())).require_grad();
    let mut found = loss(head.forward(leaf.clone()).flatten(0, 1)).backward();
    let at_positions = leaf.grad_remove(&mut found);
    let gradients = GradientsParams::from_grads(found, head);
    let whole = hidden.zeros_like();
    let of_hidden = match at_positions {
        // A prompt's last state may be that of several completions: it has all their gradients.
        Some(gradient) => whole.select_assign(0, positions, gradient, IndexingUpdateOp::Add),
        None => whole,
    };
    (gradients, of_hidden)
}
