//! What a trainer knows, as named tensors and values.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use burn::tensor::{DType, Tensor, TensorData, TensorReadError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Something that can be saved in the middle of a run and go on from there with the same bits.
pub trait Resumable {
    /// Puts everything that a later step depends on into `state`.
    ///
    /// # Errors
    /// If it cannot be read from its device.
    fn save(&self, state: &mut State) -> Result<(), StateError>;

    /// Takes out of `state` what [`save`](Self::save) put in, and goes on from there.
    ///
    /// # Errors
    /// If something is missing or does not fit. What is to be resumed is then in no defined condition.
    fn restore(&mut self, state: &mut State) -> Result<(), StateError>;
}

/// Named tensors and values. Names are paths whose parts are joined by slashes.
#[derive(Debug, Default)]
pub struct State {
    pub(super) tensors: BTreeMap<String, StateTensor>,
    pub(super) values: BTreeMap<String, Value>,
}

/// A tensor of a state.
pub struct StateTensor {
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    Host(Vec<f32>),
    /// A handle: it is read when it is written to the disk, so that the host never holds all tensors at once.
    Device(Box<Tensor<1>>),
}

/// A state does not fit what it is to restore, or could not be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor or value is not there.
    #[error("the state has no `{name}`: it was saved by something else")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than what it is to restore.
    #[error("`{name}` of the state has shape {found:?} where {expected:?} is needed")]
    Shape {
        /// Its name.
        name: String,
        /// The shape that it has.
        found: Vec<usize>,
        /// The shape that is needed.
        expected: Vec<usize>,
    },
    /// A value cannot be written as JSON or read from it.
    #[error("`{name}` of the state is not what is needed")]
    Value {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The state has more than what restores from it knows.
    #[error("the state has {}, which nothing here takes: it was saved by something else", names.join(", "))]
    Surplus {
        /// The names that are left.
        names: Vec<String>,
    },
    /// A device did not give a tensor.
    #[error("cannot read `{name}` from its device")]
    Read {
        /// Its name.
        name: String,
        /// What the device said.
        #[source]
        source: TensorReadError,
    },
}

impl StateTensor {
    /// A tensor in host memory, row-major.
    ///
    /// # Panics
    /// If there are more or fewer values than the shape says.
    #[must_use]
    pub fn from_values(shape: Vec<usize>, values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "as many values as the shape says");
        Self { shape, values: Values::Host(values) }
    }

    /// A tensor on its device, of any shape `[…]`; it is kept as it is now and read later. It is saved as f32.
    #[must_use]
    pub fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Self {
        let plain = if tensor.is_autodiff() { tensor.inner() } else { tensor };
        let (shape, count) = (plain.dims().to_vec(), plain.shape().num_elements());
        Self { shape, values: Values::Device(Box::new(plain.reshape([count]))) }
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The same values, row-major, in another shape.
    ///
    /// # Panics
    /// If that shape has another number of elements.
    #[must_use]
    pub fn reshaped(self, shape: Vec<usize>) -> Self {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        assert_eq!(count(&shape), count(&self.shape), "another shape for as many elements");
        Self { shape, ..self }
    }

    /// Its values, row-major.
    ///
    /// # Errors
    /// If its device does not give them.
    pub fn read(&self) -> Result<Cow<'_, [f32]>, TensorReadError> {
        match &self.values {
            Values::Host(values) => Ok(Cow::Borrowed(values)),
            Values::Device(tensor) => Ok(Cow::Owned((**tensor).clone().try_into_vec_as::<f32>()?)),
        }
    }

    /// Its values, row-major, without a copy where they are on the host.
    ///
    /// # Errors
    /// If its device does not give them.
    pub fn into_values(self) -> Result<Vec<f32>, TensorReadError> {
        match self.values {
            Values::Host(values) => Ok(values),
            Values::Device(tensor) => tensor.try_into_vec_as::<f32>(),
        }
    }

    /// As a tensor without a graph, where and of the type that `like` is. Shape `[…]` of `like`.
    ///
    /// # Errors
    /// If it has another shape than `like`. `name` is for the message.
    pub fn into_tensor_like<const D: usize>(
        self,
        name: &str,
        like: &Tensor<D>,
    ) -> Result<Tensor<D>, StateError> {
        let expected = like.dims();
        if self.shape != expected {
            return Err(StateError::Shape {
                name: name.into(),
                found: self.shape,
                expected: expected.to_vec(),
            });
        }
        let device = like.device().without_autodiff();
        let tensor = match self.values {
            Values::Host(values) => {
                Tensor::from_data(TensorData::new(values, expected), (&device, DType::F32))
            }
            Values::Device(tensor) => tensor.to_device(&device).reshape(expected),
        };
        Ok(if like.dtype() == DType::F32 { tensor } else { tensor.cast(like.dtype()) })
    }
}

impl fmt::Debug for StateTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTensor").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl State {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty() && self.values.is_empty()
    }

    /// Names of all tensors, in order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Puts a tensor in.
    ///
    /// # Panics
    /// If one of this name is there already.
    pub fn insert_tensor(&mut self, name: impl Into<String>, tensor: StateTensor) {
        let name = name.into();
        assert!(!self.tensors.contains_key(&name), "the state has a tensor `{name}` already");
        self.tensors.insert(name, tensor);
    }

    /// Puts a value in. Numbers keep all their bits, but JSON knows neither NaN nor infinities.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    ///
    /// # Panics
    /// If one of this name is there already.
    pub fn insert<T: Serialize + ?Sized>(
        &mut self,
        name: impl Into<String>,
        value: &T,
    ) -> Result<(), StateError> {
        let name = name.into();
        assert!(!self.values.contains_key(&name), "the state has a value `{name}` already");
        let value =
            serde_json::to_value(value).map_err(|source| StateError::Value { name: name.clone(), source })?;
        self.values.insert(name, value);
        Ok(())
    }

    /// Takes a tensor out.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn take_tensor(&mut self, name: &str) -> Result<StateTensor, StateError> {
        self.tensors.remove(name).ok_or_else(|| StateError::Missing { name: name.into() })
    }

    /// Takes a value out.
    ///
    /// # Errors
    /// If there is none of this name, or it is of another kind.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, StateError> {
        let value = self.values.remove(name).ok_or_else(|| StateError::Missing { name: name.into() })?;
        serde_json::from_value(value).map_err(|source| StateError::Value { name: name.into(), source })
    }

    /// Puts a whole state in, under a name of its own.
    ///
    /// # Panics
    /// If something of that name is there already.
    pub fn insert_state(&mut self, name: &str, inner: Self) {
        for (key, tensor) in inner.tensors {
            self.insert_tensor(format!("{name}/{key}"), tensor);
        }
        for (key, value) in inner.values {
            let key = format!("{name}/{key}");
            assert!(!self.values.contains_key(&key), "the state has a value `{key}` already");
            self.values.insert(key, value);
        }
    }

    /// Takes a whole state out; an empty one if nothing has this name.
    #[must_use]
    pub fn take_state(&mut self, name: &str) -> Self {
        let prefix = format!("{name}/");
        Self {
            tensors: take_below(&mut self.tensors, &prefix),
            values: take_below(&mut self.values, &prefix),
        }
    }

    /// Makes sure that everything was taken.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(self) -> Result<(), StateError> {
        let names: Vec<String> = self.tensors.into_keys().chain(self.values.into_keys()).collect();
        if names.is_empty() { Ok(()) } else { Err(StateError::Surplus { names }) }
    }
}

/// Takes out what stands under a prefix, which the keys lose.
fn take_below<T>(all: &mut BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
    let mut rest = all.split_off(prefix);
    let end = rest.keys().find(|key| !key.starts_with(prefix)).cloned();
    if let Some(end) = end {
        all.append(&mut rest.split_off(&end));
    }
    rest.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> StateTensor {
        StateTensor::from_values(vec![values.len()], values.to_vec())
    }

    #[test]
    fn states_nest() {
        let mut inner = State::new();
        inner.insert_tensor("weight", tensor(&[1.0]));
        inner.insert("step", &u64::MAX).unwrap();
        let mut state = State::new();
        state.insert_state("b", inner);
        state.insert("a", &1).unwrap();
        state.insert("b0", &2).unwrap();
        let mut inner = state.take_state("b");
        assert_eq!(inner.take::<u64>("step").unwrap(), u64::MAX);
        assert_eq!(*inner.take_tensor("weight").unwrap().read().unwrap(), [1.0]);
        assert!(inner.finish().is_ok());
        assert!(state.take_state("c").is_empty());
        assert!(matches!(state.finish(), Err(StateError::Surplus { names }) if names == ["a", "b0"]));
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_named() {
        let mut state = State::new();
        state.insert("step", "three").unwrap();
        assert!(matches!(state.take::<u64>("step"), Err(StateError::Value { name, .. }) if name == "step"));
        assert!(matches!(state.take::<u64>("step"), Err(StateError::Missing { .. })));
        assert!(matches!(state.take_tensor("w"), Err(StateError::Missing { .. })));
    }

    #[test]
    fn a_tensor_of_another_shape_is_refused() {
        let like = Tensor::<2>::zeros([2, 1], &burn::tensor::Device::flex());
        let wrong = tensor(&[1.0, 2.0]).into_tensor_like("w", &like).unwrap_err();
        assert!(
            matches!(wrong, StateError::Shape { found, expected, .. } if found == [2] && expected == [2, 1])
        );
        let right =
            StateTensor::from_values(vec![2, 1], vec![1.0, 2.0]).into_tensor_like("w", &like).unwrap();
        assert_eq!(right.into_data().try_into_vec::<f32>().unwrap(), [1.0, 2.0]);
    }
}
