//! Modules that are trained whole beside the adapters: PEFT's `modules_to_save`.

use std::{collections::BTreeMap, sync::Arc};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Shape, Tensor},
};

use super::modules::{PREFIX, parameter_name};
use crate::{
    decoder::{Decoder, Head},
    pretrained::{Family, HostTensor, LoadError, read_tensor},
};

const EMBEDDING: &str = "embedding";
const HEAD: &str = "head.weight";
/// What the head of GPT-NeoX was called before transformers 5.
const OLDER_HEAD: &str = "embed_out";

/// A parameter of a module that can be trained whole: an embedding table, a norm, the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WholeParameter {
    /// Its path in the decoder.
    pub(super) path: String,
    /// transformers' name of its module, such as `model.embed_tokens`.
    pub(super) module: String,
    /// `weight` or `bias`.
    part: String,
    /// Sizes of its dimensions.
    pub(super) shape: Vec<usize>,
}

impl WholeParameter {
    /// PEFT's name of the tensor.
    pub(super) fn tensor_name(&self) -> String {
        format!("{PREFIX}{}.{}", self.module, self.part)
    }

    /// The names under which versions of PEFT wrote the tensor, the newest first.
    pub(super) fn tensor_names(&self) -> Vec<String> {
        let older = (self.path == HEAD).then(|| whole_tensor_names(OLDER_HEAD, &self.part));
        whole_tensor_names(&self.module, &self.part).into_iter().chain(older.into_iter().flatten()).collect()
    }

    /// Whether it is the one matrix of a tied head and its embedding.
    pub(super) fn is_tied(&self, head: Head) -> bool {
        head == Head::Tied && self.path == EMBEDDING
    }

    /// Whether a name as users write it means the module.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let rest = self.module.strip_suffix(name);
        !name.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// The names under which versions of PEFT wrote a part of a module that is stored whole, the newest first.
pub(super) fn whole_tensor_names(module: &str, part: &str) -> [String; 3] {
    ["", "modules_to_save.", "modules_to_save.default."]
        .map(|within| format!("{PREFIX}{module}.{within}{part}"))
}

/// The name of the head, which a family with tied weights has beside the embedding.
pub(super) fn head_module(family: Family) -> String {
    let name = parameter_name(family, HEAD);
    name.strip_suffix(".weight").map_or(name.clone(), str::to_owned)
}

/// Every parameter of a model whose module can be trained whole.
pub(super) fn whole_parameters(model: &Decoder, family: Family) -> Vec<WholeParameter> {
    let can_be_whole = |path: &str| {
        let is_of_norm = path.split('.').any(|name| name.ends_with("norm"));
        is_of_norm || [EMBEDDING, "position_embedding", HEAD].contains(&path)
    };
    let named = |(path, kept): (String, Kept)| {
        let name = parameter_name(family, &path);
        let (module, part) = name.rsplit_once('.')?;
        Some(WholeParameter { path, module: module.into(), part: part.into(), shape: kept.shape })
    };
    collected(model, can_be_whole).into_iter().filter_map(named).collect()
}

/// What modules that are trained whole were before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Originals(Arc<BTreeMap<String, Kept>>);

impl Originals {
    /// Whether this is a parameter of a module that is trained whole.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts what was there back, frozen.
    pub(super) fn restore(&self, model: Decoder) -> Decoder {
        replaced(model, &self.0, Role::Frozen)
    }
}

/// Makes parameters of a frozen model trainable, with new values where there are some, and says what they were.
pub(super) fn unfreeze(model: Decoder, values: BTreeMap<String, Option<HostTensor>>) -> (Decoder, Originals) {
    let device = model.embedding.lazy_device().without_autodiff();
    let originals: BTreeMap<String, Kept> =
        collected(&model, |path| values.contains_key(path)).into_iter().collect();
    let mut begin = originals.clone();
    for (path, values) in values {
        if let Some(HostTensor { shape, values }) = values {
            let values = Tensor::from_data(values.as_slice(), &device);
            begin.insert(path, Kept { values, shape });
        }
    }
    (replaced(model, &begin, Role::Trained), Originals(Arc::new(originals)))
}

/// The parameters of the modules that are trained whole, as they are now, on the host and by their paths.
pub(super) fn read_whole(
    model: &Decoder,
    originals: &Originals,
) -> Result<BTreeMap<String, HostTensor>, LoadError> {
    let read = |(path, Kept { values, shape }): (String, Kept)| match read_tensor(values) {
        Ok(read) => Ok((path, HostTensor { shape, ..read })),
        Err(reason) => Err(LoadError::Device { parameter: path, reason }),
    };
    collected(model, |path| originals.contains(path)).into_iter().map(read).collect()
}

/// A model with the modules that another one trains whole.
pub(super) fn take_over(model: Decoder, from: &Decoder, originals: &Originals) -> Decoder {
    if originals.is_empty() {
        return model;
    }
    let values = collected(from, |path| originals.contains(path)).into_iter().collect();
    replaced(model, &values, Role::Frozen)
}

/// Numbers that share their memory with the parameter that they are of.
#[derive(Debug, Clone)]
struct Kept {
    values: Tensor<1>,
    shape: Vec<usize>,
}

/// The parameters with some paths, in the model's order.
fn collected(model: &Decoder, is_wanted: impl Fn(&str) -> bool) -> Vec<(String, Kept)> {
    let mut collector = Collector { path: Vec::new(), is_wanted, found: Vec::new() };
    model.visit(&mut collector);
    collector.found
}

struct Collector<F> {
    path: Vec<String>,
    is_wanted: F,
    found: Vec<(String, Kept)>,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Collector<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if (self.is_wanted)(&path) {
            let values = param.val().without_autodiff();
            let shape = values.dims().to_vec();
            let values = values.reshape([shape.iter().product::<usize>()]);
            self.found.push((path, Kept { values, shape }));
        }
    }
}

/// Whether a parameter takes part in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Frozen,
    Trained,
}

/// The model with other parameters.
fn replaced(model: Decoder, values: &BTreeMap<String, Kept>, role: Role) -> Decoder {
    model.map(&mut Replace { path: Vec::new(), values, role })
}

struct Replace<'a> {
    path: Vec<String>,
    values: &'a BTreeMap<String, Kept>,
    role: Role,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(Kept { values, shape }) = self.values.get(&self.path.join(".")) else { return param };
        let values = values.clone().reshape::<D, _>(Shape::from(shape.clone()));
        let values = if param.lazy_device().is_autodiff() { values.autodiff() } else { values };
        let param = Param::from_tensor(values);
        if self.role == Role::Frozen { param.no_grad() } else { param }
    }
}
