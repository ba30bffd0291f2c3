//! AdamW with the arithmetic of `torch.optim.AdamW`, its state kept by parameter name.
//!
//! Loshchilov and Hutter 2019 (arXiv:1711.05101).

mod state;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use burn::{
    module::{Module, ModuleMapper, Param},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};
use serde::{Deserialize, Serialize};

use super::tracking::Tracking;
use crate::{
    adapter::is_magnitude,
    number::{NonNegative, Positive, ProperFraction},
};

pub use state::{AdamWError, AdamWState, ParameterState};
use update::{Coefficients, Moments};

/// Which parameters shrink by weight decay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayOn {
    /// Everything but biases and the weights of norms: what has rank 2 and more, and the magnitudes of `DoRA` adapters.
    #[default]
    Matrices,
    /// All of them.
    Everything,
    /// Those with these names: paths in the model, parts joined by dots.
    Named(BTreeSet<String>),
}

impl WeightDecayOn {
    fn applies_to(&self, name: &str, rank: usize) -> bool {
        match self {
            Self::Matrices => rank >= 2 || is_magnitude(name),
            Self::Everything => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// The settings of [`AdamW`]; the learning rate comes with every step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// How much of the mean gradient remains at each step. PyTorch: 0.9.
    pub beta1: ProperFraction,
    /// How much of the mean squared gradient remains at each step. PyTorch: 0.999.
    pub beta2: ProperFraction,
    /// Added to the root of the mean squared gradient. PyTorch: 1e-8.
    pub epsilon: Positive,
    /// Share of a parameter, times the learning rate, that a step takes away. `transformers.TrainingArguments`: 0;
    /// `torch.optim.AdamW` alone: 0.01.
    pub weight_decay: NonNegative,
    /// Which parameters decay. `transformers.Trainer`: all but biases and norm weights.
    pub weight_decay_on: WeightDecayOn,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: ProperFraction::new(0.9),
            beta2: ProperFraction::new(0.999),
            epsilon: Positive::new(1e-8),
            weight_decay: NonNegative::new(0.0),
            weight_decay_on: WeightDecayOn::default(),
        }
    }
}

/// Adam with decoupled weight decay.
///
/// At step t, with gradient g:
///
/// ```text
/// θ ← θ − η λ θ
/// m ← m + (1 − β₁)(g − m)
/// v ← β₂ v + (1 − β₂) g²
/// θ ← θ − η/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
/// ```
///
/// Moments are `f32` whatever the parameter is. They belong to the parameter's path in the model, so they survive a
/// model that was saved and loaded.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimiser that has made no step.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, moments: BTreeMap::new() }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// Updates the parameters that have a gradient; the others stay as they are, weight decay included.
    ///
    /// On a CPU the update is in place if no copy of the model is held elsewhere.
    ///
    /// # Panics
    /// If a parameter has another size than at the step before.
    #[must_use]
    pub fn step<M: Module>(&mut self, learning_rate: f64, model: M, gradients: GradientsParams) -> M {
        model.map(&mut Step { optimiser: self, learning_rate, gradients, path: Vec::new() })
    }

    /// The updated values of one parameter, as a row.
    fn update(&mut self, name: &str, rank: usize, learning_rate: f64, values: Row, gradient: Row) -> Row {
        let mut moments = self.moments.remove(name).unwrap_or_else(|| Moments::zeros(&values));
        moments.step += 1;
        let decays = self.config.weight_decay_on.applies_to(name, rank);
        let coefficients = Coefficients::new(&self.config, decays, learning_rate, moments.step);
        let (updated, moments) = update::update(&coefficients, values, gradient, moments);
        self.moments.insert(name.to_owned(), moments);
        updated
    }
}

/// A parameter, a gradient or a moment without its shape.
type Row = Tensor<1>;

/// One walk over the model.
struct Step<'a> {
    optimiser: &'a mut AdamW,
    learning_rate: f64,
    gradients: GradientsParams,
    path: Vec<String>,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(parameter.id) else { return parameter };
        let name = self.path.join(".");
        // `consume` and not `val`: a second handle to the values would turn the update in place into a copy.
        let (id, tensor, mapper) = parameter.consume();
        let (shape, dtype) = (tensor.dims(), tensor.dtype());
        let count = tensor.shape().num_elements();
        let tracking = Tracking::of(&tensor);
        let values = tensor.inner().reshape([count]).cast(DType::F32);
        let gradient = gradient.inner().reshape([count]).cast(DType::F32);
        let updated = self.optimiser.update(&name, D, self.learning_rate, values, gradient);
        Param::from_mapped_value(id, tracking.restore(updated.cast(dtype).reshape(shape)), mapper)
    }
}

#[cfg(test)]
mod tests;
