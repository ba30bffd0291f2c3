//! Supervised fine-tuning, step by step.

use burn::{optim::GradientsAccumulator, tensor::Tensor};
use serde::Serialize;

use super::{
    SftRow,
    config::{SftConfig, SftConfigError, SftLoss},
    dft_loss, nll_loss, smoothed_nll_loss,
};
use crate::{
    causal_lm::{CausalLm, DropoutSeed, PassOptions, Recompute, TokenBatch},
    checkpoint::{Resumable, State, StateError},
    logprob::{LogProbPass, Targets, TokenScores},
    train::{Learner, Report, Step, Trains, UpdateError},
};

/// A tokenised sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SftExample {
    /// The whole sequence.
    pub tokens: Vec<u32>,
    /// Which tokens carry the loss; as long as `tokens`.
    pub is_target: Vec<bool>,
}

impl AsRef<Self> for SftExample {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl SftExample {
    /// Number of tokens that carry a loss. A sequence's first token never does: nothing precedes it.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.is_target.iter().skip(1).filter(|&&target| target).count()
    }
}

/// Maximises the likelihood of demonstrations.
///
/// A step's loss is the sum over all target tokens of its samples divided by their number, however many forward passes
/// the step is cut into; TRL calls that number `num_items_in_batch`.
#[derive(Debug)]
pub struct SftTrainer<M> {
    learner: Learner<M>,
    loss: SftLoss,
    micro_batch_size: usize,
    recompute: Recompute,
    tokens_seen: u64,
    seed: u64,
}

/// What a step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SftReport {
    /// Mean loss over the step's target tokens.
    pub loss: f64,
    /// Mean entropy of the next-token distribution at their positions, in nats.
    pub entropy: f64,
    /// Share of target tokens that were the most likely one.
    pub mean_token_accuracy: f64,
    /// Tokens seen since the run began, prompts included.
    pub num_tokens: u64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Rate of this step's update.
    pub learning_rate: f64,
}

/// A step could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SftError {
    /// No token of the batch carries a loss.
    #[error(
        "no token of this batch carries a loss: every sample is all prompt, or was cut before its response"
    )]
    NoTargets,
    /// A sample is longer than the model's context.
    #[error(
        "sample {index} of this batch has {tokens} tokens, the model's context {limit}: lower `max_length`"
    )]
    TooLong {
        /// Its place in the batch.
        index: usize,
        /// Its length.
        tokens: usize,
        /// What the model can read.
        limit: usize,
    },
    /// The loss is NaN or infinite; the weights were left alone.
    #[error("the loss is {loss}: lower `learning_rate`, or look at this step's samples")]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The gradients are NaN or infinite; the weights were left alone.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl Report for SftReport {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("entropy", self.entropy),
            ("mean_token_accuracy", self.mean_token_accuracy),
            ("num_tokens", self.num_tokens as f64),
        ]
    }
}

impl SftLoss {
    /// The loss of each target. Shape `[targets]`.
    #[must_use]
    pub fn per_token(self, scores: &TokenScores) -> Tensor<1> {
        let log_probs = scores.log_probs.values.clone();
        match self {
            Self::Nll { label_smoothing } if label_smoothing.get() > 0.0 => {
                smoothed_nll_loss(log_probs, scores.uniform_log_probs.clone(), label_smoothing)
            }
            Self::Nll { .. } => nll_loss(log_probs),
            Self::Dft {} => dft_loss(log_probs),
        }
    }
}

impl<M: CausalLm> SftTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device.
    ///
    /// # Errors
    /// If settings contradict each other.
    pub fn new(model: M, config: &SftConfig, total_steps: u64) -> Result<Self, SftConfigError> {
        config.check()?;
        Ok(Self {
            learner: Learner::new(model, config.update.clone(), total_steps)?,
            loss: config.loss,
            micro_batch_size: config.micro_batch_size.get(),
            recompute: config.recompute,
            tokens_seen: 0,
            seed: config.seed,
        })
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &M {
        self.learner.model()
    }

    /// Gives the model back, without gradients.
    #[must_use]
    pub fn into_model(self) -> M {
        self.model().valid()
    }

    /// Gradients and sums of one step: loss, entropy and correct tokens, over all targets.
    fn accumulate(
        &self,
        passes: &[Vec<&SftExample>],
        targets: usize,
    ) -> (burn::optim::GradientsParams, [f64; 3]) {
        let model = self.model();
        let mut gradients = GradientsAccumulator::new();
        let mut sums: Vec<Tensor<1>> = Vec::new();
        for (index, examples) in passes.iter().enumerate() {
            let (tokens, selected) = pack(examples);
            let targets_here = Targets::selected(&tokens, &selected);
            if targets_here.is_empty() {
                continue;
            }
            let dropout = Some(DropoutSeed::of(&[self.seed, self.learner.made(), index as u64]));
            let options = PassOptions { recompute: self.recompute, dropout };
            let pass = LogProbPass::forward_with(model, &tokens, &targets_here, options);
            let (of_pass, scores, losses) =
                pass.backward_per_token(|scores| self.loss.per_token(scores) / targets as f64);
            gradients.accumulate(model, of_pass);
            sums.extend([losses.sum(), scores.entropies.sum(), scores.correct.sum()]);
        }
        // One read from the device for the whole step.
        let read: Vec<f64> = Tensor::cat(sums, 0).into_data().iter::<f64>().collect();
        let total = |which: usize| read.iter().skip(which).step_by(3).sum();
        (gradients.grads(), [total(0), total(1), total(2)])
    }
}

impl<M: CausalLm> Step<[SftExample]> for SftTrainer<M> {
    type Report = SftReport;
    type Error = SftError;

    fn step(&mut self, batch: &[SftExample]) -> Result<SftReport, SftError> {
        let passes: Vec<_> = batch.chunks(self.micro_batch_size).map(|pass| pass.iter().collect()).collect();
        self.step_in_passes(&passes)
    }
}

impl<M: CausalLm> Step<[SftRow]> for SftTrainer<M> {
    type Report = SftReport;
    type Error = SftError;

    fn step(&mut self, batch: &[SftRow]) -> Result<SftReport, SftError> {
        let passes = batch.chunks(self.micro_batch_size);
        let passes: Vec<_> =
            passes.map(|rows| rows.iter().flat_map(|row| &row.sequences).collect()).collect();
        self.step_in_passes(&passes)
    }
}

impl<M: CausalLm> SftTrainer<M> {
    /// One step over the sequences of several forward passes.
    fn step_in_passes(&mut self, passes: &[Vec<&SftExample>]) -> Result<SftReport, SftError> {
        let limit = self.model().max_positions();
        if let Some((index, long)) =
            passes.iter().flatten().enumerate().find(|(_, example)| example.tokens.len() > limit)
        {
            return Err(SftError::TooLong { index, tokens: long.tokens.len(), limit });
        }
        let targets: usize = passes.iter().flatten().map(|example| example.targets()).sum();
        if targets == 0 {
            return Err(SftError::NoTargets);
        }
        let (gradients, [loss, entropy, correct]) = self.accumulate(passes, targets);
        if !loss.is_finite() {
            return Err(SftError::NotFinite { loss });
        }
        let update = self.learner.update(gradients)?;
        self.tokens_seen += passes.iter().flatten().map(|example| example.tokens.len() as u64).sum::<u64>();
        Ok(SftReport {
            loss,
            entropy: entropy / targets as f64,
            mean_token_accuracy: correct / targets as f64,
            num_tokens: self.tokens_seen,
            grad_norm: update.grad_norm,
            learning_rate: update.learning_rate,
        })
    }
}

impl<M: CausalLm> Trains for SftTrainer<M> {
    type Model = M;

    fn model(&self) -> &M {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for SftTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)?;
        state.insert("tokens_seen", &self.tokens_seen)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)?;
        self.tokens_seen = state.take("tokens_seen")?;
        Ok(())
    }
}

/// Lays samples end to end.
pub(super) fn pack(examples: &[&SftExample]) -> (TokenBatch, Vec<bool>) {
    let mut tokens = TokenBatch::default();
    let mut selected = Vec::new();
    for example in examples.iter().filter(|example| !example.tokens.is_empty()) {
        tokens.push(&example.tokens, 0);
        selected.extend_from_slice(&example.is_target);
    }
    (tokens, selected)
}
