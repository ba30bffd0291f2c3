//! The heads of classifiers: transformers' `…ForSequenceClassification` and `…ForTokenClassification`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Architecture, Family, HostTensor, LoadError, WeightSource};

/// What a classifier's numbers are said of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassifierKind {
    /// A sequence: its last token's hidden state is read. A reward model with one label, say.
    Sequence,
    /// Every token, such as the ends of a solution's steps.
    Token,
}

/// A linear layer that reads hidden states.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// What its numbers are said of.
    pub kind: ClassifierKind,
    /// `[labels, hidden]`
    pub weight: HostTensor,
    /// `[labels]`; transformers' token classifiers have one.
    pub bias: Option<HostTensor>,
    /// What else the head needs to be read again: kept in `config.json` under the key `align_kit`, which transformers
    /// carries along.
    pub settings: Option<Value>,
}

pub(crate) const SETTINGS: &str = "align_kit";

impl ClassifierKind {
    /// The end of transformers' class names.
    fn class_suffix(self) -> &'static str {
        match self {
            Self::Sequence => "ForSequenceClassification",
            Self::Token => "ForTokenClassification",
        }
    }

    /// What checkpoints call the head.
    pub(crate) fn module(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Token, Family::Gpt2 | Family::GptNeoX) => "classifier",
            _ => "score",
        }
    }
}

impl Classifier {
    /// Number of labels.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.weight.shape[0]
    }

    /// Every name that a head's tensor may have.
    pub(super) fn names(family: Family) -> Vec<&'static str> {
        match family {
            Family::Gpt2 | Family::GptNeoX => vec!["score.weight", "classifier.weight", "classifier.bias"],
            _ => vec!["score.weight", "score.bias"],
        }
    }

    /// The head that a checkpoint holds, if it holds one.
    pub(super) fn read(
        path: &Path,
        weights: &dyn WeightSource,
        architecture: &Architecture,
    ) -> Result<Option<Self>, LoadError> {
        let (family, config) = (architecture.family(), architecture.json());
        let Some(kind) = kind(config, family, weights) else { return Ok(None) };
        let module = kind.module(family);
        let name = format!("{module}.weight");
        let missing = || LoadError::MissingTensor { path: path.into(), tensor: name.clone() };
        let found = weights.shape(&name).ok_or_else(missing)?;
        let hidden = architecture.config().hidden_size;
        let labels = labels(config).or_else(|| found.first().copied()).unwrap_or(1);
        let shape = |tensor: &str, found: Vec<usize>, expected: Vec<usize>| {
            if found == expected {
                return Ok(());
            }
            Err(LoadError::Shape { path: path.into(), tensor: tensor.into(), found, expected })
        };
        shape(&name, found, vec![labels, hidden])?;
        let bias_name = format!("{module}.bias");
        let bias = match weights.shape(&bias_name) {
            None => None,
            Some(found) => {
                shape(&bias_name, found, vec![labels])?;
                Some(weights.read(&bias_name)?)
            }
        };
        let settings = config.get(SETTINGS).filter(|settings| !settings.is_null()).cloned();
        Ok(Some(Self { kind, weight: weights.read(&name)?, bias, settings }))
    }

    /// The tensors under their names in a checkpoint.
    pub(crate) fn tensors(&self, family: Family) -> Vec<(String, HostTensor)> {
        let module = self.kind.module(family);
        let bias = self.bias.clone().map(|bias| (format!("{module}.bias"), bias));
        std::iter::once((format!("{module}.weight"), self.weight.clone())).chain(bias).collect()
    }

    /// Says in a `config.json` what the head is.
    pub(super) fn describe(&self, family: Family, config: &mut Value) {
        if let Some(settings) = &self.settings {
            config[SETTINGS] = settings.clone();
        }
        config["architectures"] = json!([format!("{}{}", family.class_prefix(), self.kind.class_suffix())]);
        if labels(config) != Some(self.labels()) || !config["label2id"].is_object() {
            let name = |label: usize| format!("LABEL_{label}");
            let names: Map<String, Value> =
                (0..self.labels()).map(|label| (label.to_string(), name(label).into())).collect();
            let ids: Map<String, Value> =
                (0..self.labels()).map(|label| (name(label), label.into())).collect();
            config["id2label"] = names.into();
            config["label2id"] = ids.into();
        }
        if let Some(config) = config.as_object_mut() {
            // Follows from `id2label`; two numbers could disagree.
            config.remove("num_labels");
        }
    }
}

/// What kind of classifier a checkpoint says that it is, or else what its tensors look like.
fn kind(config: &Value, family: Family, weights: &dyn WeightSource) -> Option<ClassifierKind> {
    let classes = config["architectures"].as_array();
    let mut named = classes.into_iter().flatten().filter_map(Value::as_str);
    let kinds = [ClassifierKind::Sequence, ClassifierKind::Token];
    if let Some(kind) =
        named.find_map(|class| kinds.into_iter().find(|kind| class.ends_with(kind.class_suffix())))
    {
        return Some(kind);
    }
    let has = |name: String| weights.shape(&name).is_some();
    kinds.into_iter().rev().find(|kind| {
        let module = kind.module(family);
        let bias = has(format!("{module}.bias"));
        has(format!("{module}.weight")) && (bias || *kind == ClassifierKind::Sequence)
    })
}

/// The number of labels that a configuration names.
fn labels(config: &Value) -> Option<usize> {
    let names = config["id2label"].as_object().map(Map::len);
    names.or_else(|| config["num_labels"].as_u64().map(|labels| labels as usize))
}
