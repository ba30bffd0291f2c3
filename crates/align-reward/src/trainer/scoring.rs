//! A step of any trainer that learns from a head's numbers: passes, gradients, update.

use std::ops::Range;

use align_model::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions, Recompute, TokenBatch},
    checkpoint::{Resumable, State, StateError},
    train::{Learner, ScheduleError, Update, UpdateConfig},
};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};

use super::{RewardTrainingError, example::Group};
use crate::model::{RewardModel, ScoreHead, ScorePass};

/// Sequences of a pass and where the head reads in them.
pub(super) struct Layout {
    pub(super) batch: TokenBatch,
    pub(super) positions: Vec<usize>,
}

/// Trains a reward model by whatever loss of its numbers.
#[derive(Debug)]
pub(super) struct ScoreTraining<M: CausalLm> {
    learner: Learner<RewardModel<M>>,
    micro_batch_size: usize,
    recompute: Recompute,
    seed: u64,
    tokens_seen: u64,
}

/// What a step came to.
pub(super) struct Made {
    pub(super) loss: f64,
    /// What the head said, in the order of the positions, label by label.
    pub(super) scores: Vec<f64>,
    pub(super) update: Update,
    pub(super) tokens_seen: u64,
}

/// How a trainer cuts its steps.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) micro_batch_size: usize,
    pub(super) recompute: Recompute,
    pub(super) seed: u64,
}

impl<M: CausalLm> ScoreTraining<M> {
    pub(super) fn new(
        model: RewardModel<M>,
        cut: Cut,
        update: UpdateConfig,
        total_steps: u64,
    ) -> Result<Self, ScheduleError> {
        let Cut { micro_batch_size, recompute, seed } = cut;
        let learner = Learner::new(model, update, total_steps)?;
        Ok(Self { learner, micro_batch_size, recompute, seed, tokens_seen: 0 })
    }

    pub(super) fn model(&self) -> &RewardModel<M> {
        self.learner.model()
    }

    /// One step over `examples` examples with `tokens` tokens. `lay_out` makes a pass of some of them; `loss` sums their
    /// part of the step's loss over what the head says at the pass's positions, `[positions, labels]`.
    pub(super) fn step(
        &mut self,
        examples: usize,
        tokens: u64,
        lay_out: impl Fn(&RewardModel<M>, Range<usize>) -> Layout,
        loss: impl Fn(&ScoreHead, Tensor<2>, Range<usize>) -> Tensor<1>,
    ) -> Result<Made, RewardTrainingError> {
        let (gradients, loss, scores) = self.accumulate(examples, lay_out, loss);
        if !loss.is_finite() {
            return Err(RewardTrainingError::NotFinite { loss });
        }
        let update = self.learner.update(gradients)?;
        self.tokens_seen += tokens;
        Ok(Made { loss, scores, update, tokens_seen: self.tokens_seen })
    }

    fn accumulate(
        &self,
        examples: usize,
        lay_out: impl Fn(&RewardModel<M>, Range<usize>) -> Layout,
        loss: impl Fn(&ScoreHead, Tensor<2>, Range<usize>) -> Tensor<1>,
    ) -> (GradientsParams, f64, Vec<f64>) {
        let model = self.model();
        let mut gradients = GradientsAccumulator::new();
        let (mut losses, mut scores) = (Vec::new(), Vec::new());
        for (index, start) in (0..examples).step_by(self.micro_batch_size).enumerate() {
            let range = start..(start + self.micro_batch_size).min(examples);
            let Layout { batch, positions } = lay_out(model, range.clone());
            let dropout = Some(DropoutSeed::of(&[self.seed, self.learner.made(), index as u64]));
            let options = PassOptions { recompute: self.recompute, dropout };
            let pass = ScorePass::forward(model, &batch, &positions, options);
            let said = pass.scores();
            let of_pass = loss(&model.head, said.clone(), range);
            losses.push(of_pass.clone().inner());
            scores.push(said.inner().flatten::<1>(0, 1));
            gradients.accumulate(model, pass.backward(of_pass));
        }
        // One read from the device for the whole step.
        let passes = losses.len();
        let all = Tensor::cat(losses.into_iter().chain(scores).collect(), 0).into_data();
        let mut read: Vec<f64> = all.iter::<f64>().collect();
        let scores = read.split_off(passes);
        (gradients.grads(), read.iter().sum(), scores)
    }

    pub(super) fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    pub(super) fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}

/// Lays prompts and responses out; the head reads at the end of each response. A prompt with several responses is computed
/// once where the model can do that.
pub(super) fn lay_out(groups: &[Group<'_>], shares_prompts: bool) -> Layout {
    let (mut batch, mut positions) = (TokenBatch::default(), Vec::new());
    for Group { prompt, responses } in groups {
        let mut end = batch.tokens().len();
        if shares_prompts && responses.len() > 1 && !prompt.is_empty() {
            batch.push_sharing(prompt, responses);
            end += prompt.len();
            for response in responses {
                end += response.len();
                positions.push(end - 1);
            }
        } else {
            for response in responses {
                batch.push(&[prompt, *response].concat(), 0);
                end += prompt.len() + response.len();
                positions.push(end - 1);
            }
        }
    }
    Layout { batch, positions }
}

/// Whether every response says something and fits the model.
pub(super) fn check_groups(groups: &[Group<'_>], limit: usize) -> Result<(), RewardTrainingError> {
    if groups.is_empty() {
        return Err(RewardTrainingError::NoExamples);
    }
    for (index, group) in groups.iter().enumerate() {
        if let Some(response) = group.responses.iter().position(|response| response.is_empty()) {
            return Err(RewardTrainingError::EmptyResponse { index, response });
        }
        let longest = group.responses.iter().map(|response| response.len()).max().unwrap_or(0);
        let tokens = group.prompt.len() + longest;
        if tokens > limit {
            return Err(RewardTrainingError::TooLong { index, tokens, limit });
        }
    }
    Ok(())
}
