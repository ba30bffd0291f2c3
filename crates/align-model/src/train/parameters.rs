//! The parameters that a run trains, by name: written, read and replaced.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
};

use super::tracking::Tracking;
use crate::checkpoint::{Fingerprint, FingerprintBuilder, State, StateError, StateTensor};

/// Puts the parameters that have gradients into `state`, by their paths in the model. Frozen ones belong to the model
/// that the run started from and are not written.
pub fn save_trained<M: Module>(model: &M, state: &mut State) {
    visit_trained(model, &mut Save(state));
}

/// Replaces the values of all parameters that have gradients by those of `state`.
///
/// # Errors
/// If one is missing or has another shape. The model comes back with the error, in part replaced.
pub fn restore_trained<M: Module>(model: M, state: &mut State) -> Result<M, (M, StateError)> {
    replace_trained(model, |name| state.take_tensor(name))
}

/// What a model is: names, shapes and bits of all its parameters.
///
/// # Errors
/// If a parameter cannot be read from its device.
pub fn fingerprint_of<M: Module>(model: &M) -> Result<Fingerprint, StateError> {
    let mut walk = Print { path: Vec::new(), builder: FingerprintBuilder::new(), failed: None };
    model.visit(&mut walk);
    walk.failed.map_or_else(|| Ok(walk.builder.finish()), Err)
}

/// Something that is done with every trained parameter.
pub(super) trait TrainedVisitor {
    /// The parameter's name and values, without a graph.
    fn visit<const D: usize>(&mut self, name: &str, values: Tensor<D>);
}

/// Shows every parameter that has gradients.
pub(super) fn visit_trained<M: Module>(model: &M, visitor: &mut impl TrainedVisitor) {
    model.visit(&mut Walk { path: Vec::new(), visitor });
}

/// Replaces every parameter that has gradients by what `replacement` has for its name.
pub(super) fn replace_trained<M: Module>(
    model: M,
    replacement: impl FnMut(&str) -> Result<StateTensor, StateError>,
) -> Result<M, (M, StateError)> {
    let mut replace = Replace { path: Vec::new(), replacement, failed: None };
    let model = model.map(&mut replace);
    match replace.failed {
        None => Ok(model),
        Some(error) => Err((model, error)),
    }
}

struct Save<'a>(&'a mut State);

impl TrainedVisitor for Save<'_> {
    fn visit<const D: usize>(&mut self, name: &str, values: Tensor<D>) {
        self.0.insert_tensor(name, StateTensor::from_tensor(values));
    }
}

struct Walk<'a, V> {
    path: Vec<String>,
    visitor: &'a mut V,
}

impl<V: TrainedVisitor> ModuleVisitor for Walk<'_, V> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let values = parameter.val();
        if values.is_require_grad() {
            self.visitor.visit(&self.path.join("."), values.inner());
        }
    }
}

struct Replace<F> {
    path: Vec<String>,
    replacement: F,
    failed: Option<StateError>,
}

impl<F: FnMut(&str) -> Result<StateTensor, StateError>> ModuleMapper for Replace<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() || !parameter.val().is_require_grad() {
            return parameter;
        }
        let name = self.path.join(".");
        let (id, old, mapper) = parameter.consume();
        let replaced = (self.replacement)(&name).and_then(|new| new.into_tensor_like(&name, &old));
        let new = match replaced {
            Ok(new) => Tracking::of(&old).restore(new),
            Err(error) => {
                self.failed = Some(error);
                old
            }
        };
        Param::from_mapped_value(id, new, mapper)
    }
}

struct Print {
    path: Vec<String>,
    builder: FingerprintBuilder,
    failed: Option<StateError>,
}

impl ModuleVisitor for Print {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.failed.is_some() {
            return;
        }
        let name = self.path.join(".");
        let tensor = StateTensor::from_tensor(parameter.val());
        match tensor.read() {
            Ok(values) => {
                self.builder.update(format!("{name} {:?}", tensor.shape()).as_bytes());
                for piece in values.chunks(1 << 18) {
                    self.builder
                        .update(&piece.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
                }
            }
            Err(source) => self.failed = Some(StateError::Read { name, source }),
        }
    }
}
