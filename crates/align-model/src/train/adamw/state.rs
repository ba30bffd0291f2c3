//! The state of the optimiser as plain numbers, to be saved and loaded.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Device, Tensor, TensorData, TensorReadError},
};
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Row, update::Moments};

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
