//! Attributes weighted by what the prompt asks for.

use align_model::{
    checkpoint::{Resumable, State, StateError},
    decoder::{ParameterSource as _, RandomParameters},
    number::{Positive, UnitInterval},
    train::{Learner, Report, ScheduleError, Step, Trains, UpdateConfig, UpdateError},
};
use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{
        Device, Tensor, TensorData,
        activation::{relu, softmax},
    },
};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::loss::bradley_terry_loss;

/// The shape of a gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Widths of the hidden layers. `ArmoRM`: three of 1024.
    pub hidden: Vec<usize>,
    /// What the logits are divided by before they become weights. `ArmoRM`: 10.
    pub temperature: Positive,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self { hidden: vec![1024; 3], temperature: Positive::new(10.0) }
    }
}

/// Turns what a prompt's last token makes of the prompt into weights of a reward model's attributes.
///
/// ```text
/// g = scale · softmax(mlp(prompt) / temperature)        over the attributes
/// score = Σ_j g_j · (r_j − λ_j·r_v)
/// ```
///
/// with λ from [`verbosity_penalties`](super::verbosity_penalties). `ArmoRM`, Wang et al. 2024,
/// [arXiv:2406.12845](https://arxiv.org/abs/2406.12845), §3.2. The softmax is over the attributes, and the penalties are
/// part of what is trained, as the paper has it; its code does neither.
#[derive(Module, Debug)]
pub struct AttributeGate {
    /// `[out, in]` of each layer.
    weights: Vec<Param<Tensor<2>>>,
    /// `[out]` of each layer.
    biases: Vec<Param<Tensor<1>>>,
    /// `[1]`
    scale: Param<Tensor<1>>,
    #[module(skip)]
    temperature: f64,
    /// The attribute that is subtracted, and how much of it from each.
    #[module(skip)]
    verbosity: Option<(usize, Vec<f64>)>,
}

impl AttributeGate {
    /// A fresh gate from `features` of a prompt to `attributes` weights: layers are drawn with a standard deviation of
    /// 1/√(3·inputs), that of PyTorch's linear layers.
    ///
    /// # Panics
    /// If there are no features or no attributes.
    #[must_use]
    pub fn random(
        [features, attributes]: [usize; 2],
        config: &GateConfig,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        assert!(features > 0 && attributes > 0, "a gate goes from features to attributes");
        let (mut weights, mut biases, mut inputs) = (Vec::new(), Vec::new(), features);
        for &outputs in config.hidden.iter().chain([&attributes]) {
            let standard_deviation = (3.0 * inputs as f32).sqrt().recip();
            let mut source = RandomParameters { rng, standard_deviation, norm_weight: 1.0 };
            let Ok(values) = source.parameter("weight", &[outputs, inputs]);
            weights.push(Param::from_data(TensorData::new(values, [outputs, inputs]), device));
            biases.push(Param::from_data(TensorData::new(vec![0.0f32; outputs], [outputs]), device));
            inputs = outputs;
        }
        let scale = Param::from_data(TensorData::from([1.0f32]), device);
        Self { weights, biases, scale, temperature: config.temperature.get(), verbosity: None }
    }

    /// Subtracts so much of the attribute `verbosity` from each attribute before they are weighted.
    #[must_use]
    pub fn with_penalties(mut self, verbosity: usize, penalties: Vec<f64>) -> Self {
        self.verbosity = Some((verbosity, penalties));
        self
    }

    /// The attributes' weights. `prompts`: `[prompts, features]`, result: `[prompts, attributes]`; rows sum to the scale.
    #[must_use]
    pub fn weights(&self, prompts: Tensor<2>) -> Tensor<2> {
        let last = self.weights.len() - 1;
        let mut x = prompts;
        for (index, (weight, bias)) in self.weights.iter().zip(&self.biases).enumerate() {
            x = x.matmul(weight.val().transpose()) + bias.val().unsqueeze_dim(0);
            if index < last {
                x = relu(x);
            }
        }
        softmax(x / self.temperature, 1) * self.scale.val().unsqueeze_dim(0)
    }

    /// One score for each response. `prompts`: `[responses, features]`, `attributes`: `[responses, attributes]`, result:
    /// `[responses]`.
    #[must_use]
    pub fn scores(&self, prompts: Tensor<2>, attributes: Tensor<2>) -> Tensor<1> {
        let attributes = match &self.verbosity {
            None => attributes,
            Some((verbosity, penalties)) => {
                let verbose = attributes.clone().narrow(1, *verbosity, 1);
                let penalties: Vec<f32> = penalties.iter().map(|&penalty| penalty as f32).collect();
                let penalties = Tensor::<1>::from_data(penalties.as_slice(), &attributes.device());
                attributes - verbose * penalties.unsqueeze_dim(0)
            }
        };
        (self.weights(prompts) * attributes).sum_dim(1).squeeze_dim(1)
    }
}

/// A pair as a gate sees it: numbers that the frozen model made.
#[derive(Debug, Clone, PartialEq)]
pub struct GateExample {
    /// The hidden state of the prompt's last token.
    pub prompt: Vec<f32>,
    /// The chosen response's attributes.
    pub chosen: Vec<f32>,
    /// The rejected response's attributes.
    pub rejected: Vec<f32>,
}

/// How a gate is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateTrainingConfig {
    /// Learning rate, schedule, optimiser, clipping. `ArmoRM`: `AdamW` at 1e-3.
    pub update: UpdateConfig,
    /// Share of labels taken to be wrong.
    pub label_smoothing: UnitInterval,
}

impl Default for GateTrainingConfig {
    fn default() -> Self {
        Self {
            update: UpdateConfig { learning_rate: Positive::new(1e-3), ..UpdateConfig::default() },
            label_smoothing: UnitInterval::new(0.0),
        }
    }
}

/// Trains a gate on pairs, everything else frozen.
#[derive(Debug)]
pub struct GateTrainer {
    learner: Learner<AttributeGate>,
    smoothing: UnitInterval,
}

/// What a step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateReport {
    /// Mean loss over the pairs.
    pub loss: f64,
    /// Share of pairs whose chosen response scores higher.
    pub accuracy: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Rate of this step's update.
    pub learning_rate: f64,
}

/// A step could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// There are no pairs.
    #[error("a step needs at least one pair")]
    NoPairs,
    /// A pair has other sizes than the gate.
    #[error(
        "pair {index} has {found:?} features, chosen and rejected attributes, the gate takes {expected:?}"
    )]
    Shape {
        /// Its place in the batch.
        index: usize,
        /// What it has.
        found: [usize; 3],
        /// What the gate takes.
        expected: [usize; 3],
    },
    /// The loss is NaN or infinite; the weights were left alone.
    #[error("the loss is {loss}: lower `learning_rate`, or look at this step's pairs")]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The gradients are NaN or infinite; the weights were left alone.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl Report for GateReport {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("accuracy", self.accuracy),
        ]
    }
}

impl GateTrainer {
    /// A trainer at the start of a run of `total_steps`.
    ///
    /// # Errors
    /// If the schedule does not fit the rate.
    pub fn new(
        gate: AttributeGate,
        config: &GateTrainingConfig,
        total_steps: u64,
    ) -> Result<Self, ScheduleError> {
        let gate = if gate.scale.lazy_device().is_autodiff() { gate } else { gate.train() };
        let learner = Learner::new(gate, config.update.clone(), total_steps)?;
        Ok(Self { learner, smoothing: config.label_smoothing })
    }

    /// The gate as it is now.
    #[must_use]
    pub fn gate(&self) -> &AttributeGate {
        self.learner.model()
    }

    fn check(&self, batch: &[GateExample]) -> Result<(), GateError> {
        let gate = self.gate();
        let attributes = gate.biases.last().map_or(0, |bias| bias.lazy_shape()[0]);
        let expected = [gate.weights[0].lazy_shape()[1], attributes, attributes];
        let sizes = |pair: &GateExample| [pair.prompt.len(), pair.chosen.len(), pair.rejected.len()];
        match batch.iter().map(sizes).enumerate().find(|(_, found)| *found != expected) {
            Some((index, found)) => Err(GateError::Shape { index, found, expected }),
            None if batch.is_empty() => Err(GateError::NoPairs),
            None => Ok(()),
        }
    }
}

impl Step<[GateExample]> for GateTrainer {
    type Report = GateReport;
    type Error = GateError;

    fn step(&mut self, batch: &[GateExample]) -> Result<GateReport, GateError> {
        self.check(batch)?;
        let gate = self.gate();
        let device = gate.scale.lazy_device().without_autodiff();
        let matrix = |part: fn(&GateExample) -> &Vec<f32>| {
            let values: Vec<f32> = batch.iter().flat_map(|pair| part(pair).iter().copied()).collect();
            let width = part(&batch[0]).len();
            Tensor::<2>::from_data(TensorData::new(values, [batch.len(), width]), &device)
        };
        let prompts = matrix(|pair| &pair.prompt);
        let chosen = gate.scores(prompts.clone(), matrix(|pair| &pair.chosen));
        let rejected = gate.scores(prompts, matrix(|pair| &pair.rejected));
        let right = chosen.clone().greater(rejected.clone()).float().mean().inner();
        let loss = bradley_terry_loss(chosen, rejected, None, self.smoothing).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), gate);
        let read: Vec<f64> = Tensor::cat(vec![loss.inner(), right], 0).into_data().iter::<f64>().collect();
        let (loss, accuracy) = (read[0], read[1]);
        if !loss.is_finite() {
            return Err(GateError::NotFinite { loss });
        }
        let update = self.learner.update(gradients)?;
        Ok(GateReport { loss, accuracy, grad_norm: update.grad_norm, learning_rate: update.learning_rate })
    }
}

impl Trains for GateTrainer {
    type Model = AttributeGate;

    fn model(&self) -> &AttributeGate {
        self.gate()
    }
}

impl Resumable for GateTrainer {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.learner.save(state)
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.learner.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    fn gate(seed: u64) -> AttributeGate {
        let config = GateConfig { hidden: vec![16], ..GateConfig::default() };
        AttributeGate::random([2, 2], &config, &mut ChaCha8Rng::seed_from_u64(seed), &Device::flex())
    }

    /// Prompts of the first kind care for the first attribute, those of the second for the second.
    fn pairs() -> Vec<GateExample> {
        (0..32)
            .map(|i| {
                let first = i % 2 == 0;
                let prompt = if first { vec![1.0, 0.0] } else { vec![0.0, 1.0] };
                let (chosen, rejected) = (vec![1.0, -1.0], vec![-1.0, 1.0]);
                let (chosen, rejected) = if first { (chosen, rejected) } else { (rejected, chosen) };
                GateExample { prompt, chosen, rejected }
            })
            .collect()
    }

    #[test]
    fn weights_are_normalised_over_the_attributes() {
        let weights = gate(1).weights(Tensor::from_data([[0.3f32, -2.0], [5.0, 1.0]], &Device::flex()));
        for sum in weights.sum_dim(1).into_data().iter::<f64>() {
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn penalties_are_part_of_the_score() {
        let device = Device::flex();
        let prompts = Tensor::<2>::from_data([[0.3f32, -2.0]], &device);
        let attributes = Tensor::<2>::from_data([[2.0f32, 3.0]], &device);
        let plain = gate(1).scores(prompts.clone(), attributes.clone()).into_scalar::<f64>();
        let same = gate(1).scores(prompts.clone(), Tensor::from_data([[2.0f32 - 0.5 * 3.0, 3.0]], &device));
        let penalised = gate(1).with_penalties(1, vec![0.5, 0.0]).scores(prompts, attributes);
        let penalised = penalised.into_scalar::<f64>();
        assert!((penalised - same.into_scalar::<f64>()).abs() < 1e-6 && penalised < plain);
    }

    #[test]
    fn a_gate_learns_which_prompt_wants_which_attribute() {
        let config = GateTrainingConfig {
            update: UpdateConfig { learning_rate: Positive::new(0.02), ..UpdateConfig::default() },
            ..GateTrainingConfig::default()
        };
        let mut trainer = GateTrainer::new(gate(3), &config, 100).unwrap();
        let mut last = None;
        for _ in 0..100 {
            last = Some(trainer.step(&pairs()).unwrap());
        }
        let last = last.unwrap();
        assert!(last.accuracy > 0.99 && last.loss < 0.3, "{last:?}");
    }

    #[test]
    fn pairs_of_other_sizes_are_named() {
        let mut trainer = GateTrainer::new(gate(3), &GateTrainingConfig::default(), 1).unwrap();
        assert_eq!(trainer.step(&[]), Err(GateError::NoPairs));
        let mut wrong = pairs();
        wrong[2].chosen.push(1.0);
        let expected = GateError::Shape { index: 2, found: [2, 3, 2], expected: [2, 2, 2] };
        assert_eq!(trainer.step(&wrong), Err(expected));
    }
}
