//! Process reward models: each step of a solution is judged.

mod example;

use std::num::NonZeroUsize;

use align_model::{
    causal_lm::{CausalLm, Recompute, TokenBatch},
    checkpoint::{Resumable, State, StateError},
    number::Positive,
    sft::Duration,
    train::{Report, Step, Trains, UpdateConfig},
};
use burn::{
    module::Module as _,
    tensor::{Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

use super::{
    RewardConfigError, RewardTrainingError,
    config::{EIGHT, MAX_LENGTH, THREE_EPOCHS},
    scoring::{Cut, Layout, ScoreTraining},
};
use crate::{loss::soft_class_loss, model::RewardModel};
pub use example::{
    LabelOn, ProcessExample, ProcessLeftOut, ProcessTokenizer, StepAggregation, StepLabel, StepTarget,
};

/// Everything that training a process reward model needs to be repeated, but the model and the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// What ends a step. TRL: a line break.
    pub step_separator: String,
    /// Which steps carry a label. TRL: all.
    pub label_on: LabelOn,
    /// How long the run is.
    pub duration: Duration,
    /// Solutions an optimiser step. transformers: 8.
    pub batch_size: NonZeroUsize,
    /// Solutions a forward pass; fewer need less memory and change nothing else.
    pub micro_batch_size: NonZeroUsize,
    /// What is computed twice to save memory; changes nothing else.
    pub recompute: Recompute,
    /// Tokens of a solution with its prompt, at most; steps beyond are cut off. TRL: 1024.
    pub max_length: NonZeroUsize,
    /// Learning rate (TRL: 1e-5), schedule, optimiser, clipping.
    pub update: UpdateConfig,
    /// Seed of the order of samples and of a fresh head.
    pub seed: u64,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            step_separator: "\n".into(),
            label_on: LabelOn::default(),
            duration: THREE_EPOCHS,
            batch_size: EIGHT,
            micro_batch_size: EIGHT,
            recompute: Recompute::default(),
            max_length: MAX_LENGTH,
            update: UpdateConfig { learning_rate: Positive::new(1e-5), ..UpdateConfig::default() },
            seed: 42,
        }
    }
}

/// What a step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessReport {
    /// Mean loss over the labelled steps.
    pub loss: f64,
    /// Share of labelled steps whose likeliest class is the label's (of a distribution, its own likeliest).
    pub accuracy: f64,
    /// Labelled steps of solutions.
    pub labels: usize,
    /// Tokens seen since the run began.
    pub num_tokens: u64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Rate of this step's update.
    pub learning_rate: f64,
}

impl Report for ProcessReport {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("accuracy", self.accuracy),
            ("num_tokens", self.num_tokens as f64),
        ]
    }
}

/// Trains a model to judge the steps of solutions: a token classifier whose head is read where steps end.
///
/// A step's loss is the mean over all its labels, however many forward passes it is cut into.
#[derive(Debug)]
pub struct ProcessTrainer<M: CausalLm> {
    training: ScoreTraining<M>,
}

impl<M: CausalLm> ProcessTrainer<M> {
    /// A trainer at the start of a run of `total_steps`. It trains on the model's own device. The head has one label a
    /// class: two where a step is wrong or right.
    ///
    /// # Errors
    /// If settings contradict each other or the model.
    pub fn new(
        model: RewardModel<M>,
        config: &ProcessConfig,
        total_steps: u64,
    ) -> Result<Self, RewardConfigError> {
        let (micro, batch) = (config.micro_batch_size.get(), config.batch_size.get());
        if micro > batch {
            return Err(RewardConfigError::MicroBatchTooLarge { micro, batch });
        }
        if model.labels() < 2 {
            let found = model.labels();
            return Err(RewardConfigError::Labels { data: "steps of solutions", found, expected: 2 });
        }
        let cut = Cut { micro_batch_size: micro, recompute: config.recompute, seed: config.seed };
        Ok(Self { training: ScoreTraining::new(model, cut, config.update.clone(), total_steps)? })
    }

    /// The model as it is now.
    #[must_use]
    pub fn model(&self) -> &RewardModel<M> {
        self.training.model()
    }

    /// Gives the model back, without gradients.
    #[must_use]
    pub fn into_model(self) -> RewardModel<M> {
        self.model().valid()
    }
}

impl<M: CausalLm> RewardModel<M> {
    /// The probability of `class` (1: right) at some positions of a solution, without gradients.
    ///
    /// # Panics
    /// If there is no position, one is outside the solution, or the head has no such class.
    #[must_use]
    pub fn step_probabilities(&self, tokens: &[u32], positions: &[usize], class: usize) -> Vec<f64> {
        assert!(class < self.labels(), "the head has no such class");
        let scores = self.valid().scores(&TokenBatch::from_sequences(&[tokens]), positions);
        let probabilities = burn::tensor::activation::softmax(scores, 1).narrow(1, class, 1);
        probabilities.into_data().iter::<f64>().collect()
    }
}

impl<M: CausalLm> Step<[ProcessExample]> for ProcessTrainer<M> {
    type Report = ProcessReport;
    type Error = RewardTrainingError;

    fn step(&mut self, batch: &[ProcessExample]) -> Result<ProcessReport, RewardTrainingError> {
        let (classes, limit) = (self.model().labels(), self.model().backbone.max_positions());
        check(batch, classes, limit)?;
        let labels: usize = batch.iter().map(|example| example.labels.len()).sum();
        let tokens = batch.iter().map(|example| example.tokens.len() as u64).sum();
        let lay_out = |_: &RewardModel<M>, range: std::ops::Range<usize>| {
            let (mut tokens, mut positions) = (TokenBatch::default(), Vec::new());
            for example in &batch[range] {
                let start = tokens.tokens().len();
                positions.extend(example.labels.iter().map(|label| start + label.position));
                tokens.push(&example.tokens, 0);
            }
            Layout { batch: tokens, positions }
        };
        let made = self.training.step(batch.len(), tokens, lay_out, |_, logits, range| {
            let targets: Vec<f32> =
                targets(&batch[range]).flat_map(|target| target.probabilities(classes)).collect();
            let shape = logits.dims();
            let device = logits.device().without_autodiff();
            let targets = Tensor::from_data(TensorData::new(targets, shape), &device);
            soft_class_loss(logits, targets).sum() / labels as f64
        })?;
        let right = made.scores.chunks(classes).zip(targets(batch)).filter(|(said, target)| {
            largest(said.iter().copied()) == largest(target.probabilities(classes).into_iter().map(f64::from))
        });
        Ok(ProcessReport {
            loss: made.loss,
            accuracy: right.count() as f64 / labels as f64,
            labels,
            num_tokens: made.tokens_seen,
            grad_norm: made.update.grad_norm,
            learning_rate: made.update.learning_rate,
        })
    }
}

fn targets(batch: &[ProcessExample]) -> impl Iterator<Item = &StepTarget> {
    batch.iter().flat_map(|example| example.labels.iter().map(|label| &label.target))
}

/// The place of the largest value, the first of several.
fn largest(values: impl Iterator<Item = f64>) -> usize {
    let larger =
        |best: (usize, f64), (place, value): (usize, f64)| if value > best.1 { (place, value) } else { best };
    values.enumerate().fold((0, f64::NEG_INFINITY), larger).0
}

fn check(batch: &[ProcessExample], classes: usize, limit: usize) -> Result<(), RewardTrainingError> {
    if batch.is_empty() {
        return Err(RewardTrainingError::NoExamples);
    }
    for (index, example) in batch.iter().enumerate() {
        let tokens = example.tokens.len();
        if tokens > limit {
            return Err(RewardTrainingError::TooLong { index, tokens, limit });
        }
        if example.labels.is_empty() {
            return Err(RewardTrainingError::Unlabelled { index });
        }
        let wrong = |what, value: f64, expected| RewardTrainingError::Value { index, what, value, expected };
        for label in &example.labels {
            if label.position >= tokens {
                let expected = format!("below its {tokens} tokens");
                return Err(wrong("a label's position", label.position as f64, expected));
            }
            match &label.target {
                StepTarget::Class(class) if *class >= classes => {
                    return Err(wrong(
                        "a class",
                        *class as f64,
                        format!("below the head's {classes} labels"),
                    ));
                }
                StepTarget::Class(_) => {}
                StepTarget::Distribution(probabilities) => {
                    let sum: f32 = probabilities.iter().sum();
                    let in_range = probabilities.iter().all(|p| (0.0..=1.0).contains(p));
                    if probabilities.len() != classes || !in_range || (sum - 1.0).abs() > 1e-3 {
                        let expected = format!("{classes} probabilities with the sum 1");
                        return Err(wrong("the sum of a distribution", f64::from(sum), expected));
                    }
                }
            }
        }
    }
    Ok(())
}

impl<M: CausalLm> Trains for ProcessTrainer<M> {
    type Model = RewardModel<M>;

    fn model(&self) -> &RewardModel<M> {
        Self::model(self)
    }
}

impl<M: CausalLm> Resumable for ProcessTrainer<M> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.training.save(state)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.training.restore(state)
    }
}
