//! The head of a classifier, which its adapter holds whole.

use std::collections::BTreeSet;

use super::{super::whole::whole_tensor_names, AdapterError, SavedAdapter};
use crate::{
    decoder::Head,
    pretrained::{Architecture, Classifier, ClassifierKind, Family, HostTensor, WeightSource as _},
};

const KINDS: [ClassifierKind; 2] = [ClassifierKind::Sequence, ClassifierKind::Token];

/// Every name that a tensor of a head may have.
pub(super) fn tensor_names(family: Family) -> BTreeSet<String> {
    let modules = KINDS.map(|kind| kind.module(family));
    modules
        .into_iter()
        .flat_map(|module| ["weight", "bias"].into_iter().flat_map(|part| whole_tensor_names(module, part)))
        .collect()
}

impl SavedAdapter {
    /// The head that the adapter holds beside its matrices, of a reward model say; `None` if it holds none. The decoder
    /// under it is one [without a head](crate::decoder::Decoder::without_head).
    ///
    /// # Errors
    /// If the head is of another size than the model's hidden states, its configuration promises a head that is not in
    /// the file, or it cannot be read.
    pub fn classifier(&self, architecture: &Architecture) -> Result<Option<Classifier>, AdapterError> {
        let (family, hidden) = (architecture.family(), architecture.config().hidden_size);
        let kind = self.config.classifier_kind().or_else(|| self.kind_of_tensors(family));
        let Some(kind) = kind else { return Ok(None) };
        let module = kind.module(family);
        let Some((name, weight)) = self.find(module, "weight") else {
            let is_promised = self.config.whole.iter().any(|name| name == module);
            let [name, ..] = whole_tensor_names(module, "weight");
            return if is_promised { Err(self.missing(&name)) } else { Ok(None) };
        };
        // The number of labels is the adapter's own: the base model may be a language model.
        let labels = weight.first().copied().filter(|labels| *labels > 0).unwrap_or(1);
        let read = |name: &str, shape: Vec<usize>| {
            self.read(name, &shape).map(|values| HostTensor { shape, values })
        };
        let weight = read(&name, vec![labels, hidden])?;
        let bias = self.find(module, "bias").map(|(name, _)| read(&name, vec![labels])).transpose()?;
        Ok(Some(Classifier { kind, weight, bias, settings: self.config.classifier_settings.clone() }))
    }

    /// The head of a classifier has no place on a decoder that has a head.
    pub(super) fn check_head(&self, family: Family, head: Head) -> Result<(), AdapterError> {
        let tensor = tensor_names(family).into_iter().find(|name| self.weights.shape(name).is_some());
        match tensor.filter(|_| head != Head::Absent) {
            Some(tensor) => Err(AdapterError::ClassifierHead { path: self.weights_path.clone(), tensor }),
            None => Ok(()),
        }
    }

    /// What the tensors look like.
    fn kind_of_tensors(&self, family: Family) -> Option<ClassifierKind> {
        let has = |kind: ClassifierKind, part| self.find(kind.module(family), part).is_some();
        KINDS
            .into_iter()
            .rev()
            .find(|&kind| has(kind, "weight") && (kind == ClassifierKind::Sequence || has(kind, "bias")))
    }

    /// The name and the shape of a part of a module that is stored whole.
    fn find(&self, module: &str, part: &str) -> Option<(String, Vec<usize>)> {
        whole_tensor_names(module, part).into_iter().find_map(|name| {
            let shape = self.weights.shape(&name)?;
            Some((name, shape))
        })
    }
}
