//! A moving average of the trained parameters.

use std::collections::BTreeMap;

use burn::{
    module::Module,
    tensor::{DType, Tensor},
};
use serde::{Deserialize, Serialize};

use super::{
    Step, Trains,
    parameters::{TrainedVisitor, replace_trained, visit_trained},
};
use crate::{
    checkpoint::{Resumable, State, StateError, StateTensor},
    number::ProperFraction,
};

/// How trained parameters are averaged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaConfig {
    /// How much of the average remains at each step.
    pub decay: ProperFraction,
    /// How the average begins.
    pub warmup: EmaWarmup,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: ProperFraction::new(0.999), warmup: EmaWarmup::default() }
    }
}

/// How an average begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmaWarmup {
    /// With a smaller decay, so that the first parameters are soon forgotten: at step t at most (1 + t)/(10 + t), as
    /// `tf.train.ExponentialMovingAverage` and diffusers do.
    #[default]
    Ramp,
    /// With the full decay from the first step on.
    None,
}

impl EmaConfig {
    /// The decay of step t; the first is 1.
    #[must_use]
    pub fn decay_at(&self, step: u64) -> f64 {
        let t = step as f64;
        match self.warmup {
            EmaWarmup::Ramp => self.decay.get().min((1.0 + t) / (10.0 + t)),
            EmaWarmup::None => self.decay.get(),
        }
    }
}

/// A moving average of the trained parameters of a model: `e ← d·e + (1 − d)·θ` after each step.
#[derive(Debug)]
pub struct Ema {
    config: EmaConfig,
    step: u64,
    averages: Averages,
}

impl Ema {
    /// An average that is the model itself.
    #[must_use]
    pub fn new<M: Module>(config: EmaConfig, model: &M) -> Self {
        let mut collect = Collect(BTreeMap::new());
        visit_trained(model, &mut collect);
        Self { config, step: 0, averages: collect.0 }
    }

    /// Takes a step's parameters into the average.
    pub fn update<M: Module>(&mut self, model: &M) {
        self.step += 1;
        let decay = self.config.decay_at(self.step);
        visit_trained(model, &mut Update { averages: &mut self.averages, decay });
    }

    /// The model with the averages in place of its trained parameters.
    ///
    /// # Panics
    /// If it is another model than the one that was averaged.
    #[must_use]
    pub fn apply<M: Module>(&self, model: M) -> M {
        let average = |name: &str| {
            let (shape, average) =
                self.averages.get(name).ok_or_else(|| StateError::Missing { name: name.into() })?;
            Ok(StateTensor::from_tensor(average.clone()).reshaped(shape.clone()))
        };
        let replaced = replace_trained(model, average).map_err(|(_, error)| error);
        assert!(replaced.is_ok(), "the average is of another model: {:?}", replaced.err());
        replaced.unwrap_or_else(|_| unreachable!("it was just looked at"))
    }
}

impl Resumable for Ema {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        state.insert("step", &self.step)?;
        for (name, (shape, average)) in &self.averages {
            let tensor = StateTensor::from_tensor(average.clone()).reshaped(shape.clone());
            state.insert_tensor(name.clone(), tensor);
        }
        Ok(())
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.step = state.take("step")?;
        for (name, (shape, average)) in &mut self.averages {
            let saved = state.take_tensor(name)?;
            if saved.shape() != shape {
                let (found, expected) = (saved.shape().to_vec(), shape.clone());
                return Err(StateError::Shape { name: name.clone(), found, expected });
            }
            let count = shape.iter().product();
            *average = saved.reshaped(vec![count]).into_tensor_like(name, average)?;
        }
        Ok(())
    }
}

/// Shape of each parameter and its average, `[elements]`, as f32 and without a graph.
type Averages = BTreeMap<String, (Vec<usize>, Tensor<1>)>;

struct Collect(Averages);

impl TrainedVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, values: Tensor<D>) {
        let shape = values.dims().to_vec();
        self.0.insert(name.to_owned(), (shape, row(values)));
    }
}

struct Update<'a> {
    averages: &'a mut Averages,
    decay: f64,
}

impl TrainedVisitor for Update<'_> {
    fn visit<const D: usize>(&mut self, name: &str, values: Tensor<D>) {
        let Some((shape, average)) = self.averages.remove(name) else { return };
        let updated = average.mul_scalar(self.decay) + row(values).mul_scalar(1.0 - self.decay);
        self.averages.insert(name.to_owned(), (shape, updated));
    }
}

fn row<const D: usize>(values: Tensor<D>) -> Tensor<1> {
    let count = values.shape().num_elements();
    values.reshape([count]).cast(DType::F32)
}

/// A trainer whose parameters are averaged after each step, if settings for it are given.
#[derive(Debug)]
pub struct Averaged<T> {
    trainer: T,
    ema: Option<Ema>,
}

impl<T: Trains> Averaged<T> {
    /// A trainer at the start of its run.
    #[must_use]
    pub fn new(trainer: T, config: Option<EmaConfig>) -> Self {
        let ema = config.map(|config| Ema::new(config, trainer.model()));
        Self { trainer, ema }
    }

    /// The trainer itself.
    #[must_use]
    pub fn trainer(&self) -> &T {
        &self.trainer
    }

    /// The averaged model without gradients, if there is an average.
    #[must_use]
    pub fn averaged_model(&self) -> Option<T::Model> {
        Some(self.ema.as_ref()?.apply(self.trainer.model().clone()).valid())
    }

    /// The model that is evaluated and saved, without gradients: the averaged one if there is an average.
    #[must_use]
    pub fn result(&self) -> T::Model {
        self.averaged_model().unwrap_or_else(|| self.trainer.model().valid())
    }
}

impl<T: Trains> Trains for Averaged<T> {
    type Model = T::Model;

    fn model(&self) -> &T::Model {
        self.trainer.model()
    }
}

impl<B: ?Sized, T: Trains + Step<B>> Step<B> for Averaged<T> {
    type Report = T::Report;
    type Error = T::Error;

    fn step(&mut self, batch: &B) -> Result<T::Report, T::Error> {
        let report = self.trainer.step(batch)?;
        if let Some(ema) = &mut self.ema {
            ema.update(self.trainer.model());
        }
        Ok(report)
    }
}

impl<T: Resumable> Resumable for Averaged<T> {
    fn save(&self, state: &mut State) -> Result<(), StateError> {
        self.trainer.save(state)?;
        if let Some(ema) = &self.ema {
            let mut average = State::new();
            ema.save(&mut average)?;
            state.insert_state("average", average);
        }
        Ok(())
    }

    fn restore(&mut self, state: &mut State) -> Result<(), StateError> {
        self.trainer.restore(state)?;
        let Some(ema) = &mut self.ema else { return Ok(()) };
        let mut average = state.take_state("average");
        ema.restore(&mut average)?;
        average.finish()
    }
}
