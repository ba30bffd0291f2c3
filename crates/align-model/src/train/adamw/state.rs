//! The state of the optimiser as plain numbers, to be saved and loaded.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Device, Tensor, TensorData, TensorReadError},
};
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Row, update::Moments};
use crate::checkpoint::{State, StateError, StateTensor};

/// Everything that [`AdamW`] knows beside its settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWState {
    /// By parameter name: its path in the model, parts joined by dots.
    pub parameters: BTreeMap<String, ParameterState>,
}

/// The state of one parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterState {
    /// Steps that the parameter has made.
    pub step: u64,
    /// Mean gradient, in the parameter's row-major order.
    pub exp_avg: Vec<f32>,
    /// Mean squared gradient, in the same order.
    pub exp_avg_sq: Vec<f32>,
}

/// The optimiser's state could not be read or does not belong to the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdamWError {
    /// The device did not give the state.
    #[error("cannot read the optimiser state of parameter {parameter} from its device")]
    Read {
        /// The parameter's name.
        parameter: String,
        /// What the device said.
        #[source]
        source: TensorReadError,
    },
    /// The state has a parameter that the model lacks.
    #[error(
        "the optimiser state has a parameter {parameter} that the model lacks: it belongs to another model"
    )]
    UnknownParameter {
        /// The parameter's name.
        parameter: String,
    },
    /// The state of a parameter has another size than the parameter.
    #[error(
        "the optimiser state of parameter {parameter} has {found} numbers where the model has {expected}"
    )]
    Size {
        /// The parameter's name.
        parameter: String,
        /// Numbers in the state.
        found: usize,
        /// Numbers in the model.
        expected: usize,
    },
}

impl AdamW {
    /// The state as plain numbers.
    ///
    /// # Errors
    /// If the device does not give them.
    pub fn state(&self) -> Result<AdamWState, AdamWError> {
        let mut parameters = BTreeMap::new();
        for (name, moments) in &self.moments {
            let read = |row: &Row| {
                let values = row.clone().try_into_vec_as::<f32>();
                values.map_err(|source| AdamWError::Read { parameter: name.clone(), source })
            };
            let state = ParameterState {
                step: moments.step,
                exp_avg: read(&moments.mean)?,
                exp_avg_sq: read(&moments.mean_square)?,
            };
            parameters.insert(name.clone(), state);
        }
        Ok(AdamWState { parameters })
    }

    /// An optimiser that goes on with `model` exactly where the one with this state stood.
    ///
    /// # Errors
    /// If the state has a parameter that the model lacks, or one of another size.
    pub fn from_state<M: Module>(
        config: AdamWConfig,
        state: AdamWState,
        model: &M,
    ) -> Result<Self, AdamWError> {
        let mut places = Places::default();
        model.visit(&mut places);
        let mut moments = BTreeMap::new();
        for (parameter, state) in state.parameters {
            let Some((device, expected)) = places.found.get(&parameter) else {
                return Err(AdamWError::UnknownParameter { parameter });
            };
            let row = |values: Vec<f32>| {
                let found = values.len();
                if found != *expected {
                    return Err(AdamWError::Size {
                        parameter: parameter.clone(),
                        found,
                        expected: *expected,
                    });
                }
                Ok(Row::from_data(TensorData::new(values, [found]), (device, DType::F32)))
            };
            let (mean, mean_square) = (row(state.exp_avg)?, row(state.exp_avg_sq)?);
            moments.insert(parameter, Moments { step: state.step, mean, mean_square });
        }
        Ok(Self { config, moments })
    }
}

impl AdamW {
    /// Puts the moments of every parameter and the number of its steps into `state`.
    ///
    /// # Errors
    /// If the numbers of steps cannot be written.
    pub fn save(&self, state: &mut State) -> Result<(), StateError> {
        let steps: BTreeMap<&str, u64> =
            self.moments.iter().map(|(name, moments)| (name.as_str(), moments.step)).collect();
        state.insert("steps", &steps)?;
        for (name, moments) in &self.moments {
            for (kind, row) in [(MEAN, &moments.mean), (MEAN_SQUARE, &moments.mean_square)] {
                state.insert_tensor(format!("{name}/{kind}"), StateTensor::from_tensor(row.clone()));
            }
        }
        Ok(())
    }

    /// Goes on with `model` from what [`save`](Self::save) put into `state`.
    ///
    /// # Errors
    /// If something is missing, or belongs to a parameter that the model lacks or that has another size.
    pub fn restore<M: Module>(&mut self, state: &mut State, model: &M) -> Result<(), StateError> {
        let mut places = Places::default();
        model.visit(&mut places);
        let steps: BTreeMap<String, u64> = state.take("steps")?;
        let mut all = BTreeMap::new();
        for (name, step) in steps {
            let Some((device, count)) = places.found.get(&name) else {
                return Err(StateError::Surplus { names: vec![name] });
            };
            let like = Row::empty([*count], (device, DType::F32));
            let mut row = |kind| {
                let key = format!("{name}/{kind}");
                state.take_tensor(&key)?.into_tensor_like(&key, &like)
            };
            let (mean, mean_square) = (row(MEAN)?, row(MEAN_SQUARE)?);
            all.insert(name, Moments { step, mean, mean_square });
        }
        self.moments = all;
        Ok(())
    }
}

const MEAN: &str = "exp_avg";
const MEAN_SQUARE: &str = "exp_avg_sq";

/// Device and number of elements of every parameter.
#[derive(Default)]
struct Places {
    path: Vec<String>,
    found: BTreeMap<String, (Device, usize)>,
}

impl ModuleVisitor for Places {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let place = (parameter.lazy_device().without_autodiff(), parameter.lazy_shape().num_elements());
        self.found.insert(self.path.join("."), place);
    }
}
