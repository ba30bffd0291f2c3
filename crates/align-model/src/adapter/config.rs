//! What to adapt and how.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    decoder::BaseWeights,
    number::{Positive, ProperFraction},
};

/// PEFT's `r` where nothing is said.
pub(super) const DEFAULT_RANK: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// Settings of adapters; the defaults are PEFT's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// What an adapter computes.
    pub kind: AdapterKind,
    /// Rank of the added matrices. PEFT's `r`: 8.
    pub rank: NonZeroUsize,
    /// How strongly they count, see [`Scaling`]. PEFT's `lora_alpha`: 8.
    pub alpha: Positive,
    /// How `alpha` and `rank` become a factor.
    pub scaling: Scaling,
    /// Share of an adapter's inputs that a training pass leaves out. PEFT's `lora_dropout`: 0.
    pub dropout: ProperFraction,
    /// Which layers get an adapter.
    pub targets: Targets,
    /// Which of those do not: names as in [`Targets::Modules`].
    pub exclude: BTreeSet<String>,
    /// Modules that are trained whole beside the adapters: embeddings, norms, the head. Names as in [`Targets::Modules`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub modules_to_save: BTreeSet<String>,
    /// The blocks that get adapters, counted from 0; all of them if not given.
    pub layers_to_transform: Option<BTreeSet<usize>>,
    /// Other ranks for the layers with these names; where several names fit a layer, the longest counts.
    pub rank_pattern: BTreeMap<String, NonZeroUsize>,
    /// Other values of `alpha` for the layers with these names; where several names fit a layer, the longest counts.
    pub alpha_pattern: BTreeMap<String, Positive>,
    /// What adapters start from.
    pub initialization: AdapterInitialization,
    /// How the weights that are not trained are kept in memory; in fewer bits this is `QLoRA`.
    pub base: BaseWeights,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            kind: AdapterKind::default(),
            rank: DEFAULT_RANK,
            alpha: Positive::new(8.0),
            scaling: Scaling::default(),
            dropout: ProperFraction::new(0.0),
            targets: Targets::default(),
            exclude: BTreeSet::new(),
            modules_to_save: BTreeSet::new(),
            layers_to_transform: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            initialization: AdapterInitialization::default(),
            base: BaseWeights::default(),
        }
    }
}

/// What an adapter computes from a layer's weight `W`, with trained `A`, `B` and a factor `s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// `W + s·B·A`
    #[default]
    Lora,
    /// `m · V / ‖V‖` row by row, with `V = W + s·B·A` and a trained magnitude `m`; the norm counts as a constant.
    Dora,
}

/// The factor `s` on an adapter of rank r.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// `alpha / r`
    #[default]
    Standard,
    /// `alpha / √r` (rsLoRA): the size of updates does not fall with the rank.
    RankStabilized,
}

impl Scaling {
    pub(super) fn factor(self, alpha: f64, rank: usize) -> f64 {
        match self {
            Self::Standard => alpha / rank as f64,
            Self::RankStabilized => alpha / (rank as f64).sqrt(),
        }
    }
}

/// Which layers get an adapter.
///
/// In a configuration file: `"default"`, `"all-linear"`, or a list of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Targets {
    /// PEFT's choice for the family: query and value, or the one matrix of query, key and value where there is one.
    #[default]
    FamilyDefault,
    /// Every linear layer but the head.
    AllLinear,
    /// The layers whose name in transformers is one of these or ends in a dot and one of these: `q_proj`,
    /// `self_attn.q_proj`, `model.layers.0.self_attn.q_proj`.
    Modules(BTreeSet<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenTargets {
    Name(String),
    Modules(BTreeSet<String>),
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::FamilyDefault => WrittenTargets::Name("default".into()),
            Self::AllLinear => WrittenTargets::Name("all-linear".into()),
            Self::Modules(names) => WrittenTargets::Modules(names.clone()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match WrittenTargets::deserialize(deserializer)? {
            WrittenTargets::Name(name) if name == "default" => Ok(Self::FamilyDefault),
            WrittenTargets::Name(name) if name == "all-linear" => Ok(Self::AllLinear),
            WrittenTargets::Name(name) => Err(serde::de::Error::custom(format!(
                "`{name}` is neither \"default\" nor \"all-linear\" nor a list of layer names, such as [\"{name}\"]"
            ))),
            WrittenTargets::Modules(names) => Ok(Self::Modules(names)),
        }
    }
}

/// What the matrix `A` starts from; `B` starts from zeros, so that a fresh adapter changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterInitialization {
    /// Uniform between `−1/√in` and `1/√in`, Kaiming's with PEFT's settings.
    #[default]
    KaimingUniform,
    /// Normal with standard deviation `1/r`.
    Gaussian,
}
