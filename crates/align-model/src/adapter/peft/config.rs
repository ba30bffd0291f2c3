//! `adapter_config.json`, both ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    num::NonZeroUsize,
    path::Path,
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::{
    AdapterError,
    attach::Attached,
    config::{AdapterInitialization, AdapterKind, DEFAULT_RANK, Scaling, Targets},
    modules::AdaptableModule,
};
use crate::{
    number::{Positive, ProperFraction},
    pretrained::{CLASSIFIER_SETTINGS, Classifier, ClassifierKind},
};

/// Keys that say nothing about what the adapter computes, or that are read elsewhere here.
const HARMLESS: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "runtime_config",
    "megatron_core",
    "qalora_group_size",
    // PEFT itself sets this to what the layer is, whatever the file says.
    "fan_in_fan_out",
    // How A and B were initialised; `init_lora_weights` says whether that touched the base weights.
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "ensure_weight_tying",
];

/// What PEFT calls the work of classifiers.
const SEQUENCE_TASK: &str = "SEQ_CLS";
const TOKEN_TASK: &str = "TOKEN_CLS";

/// Keys that are used.
const USED: [&str; 17] = [
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_dora",
    "use_rslora",
    "init_lora_weights",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "layers_pattern",
    "modules_to_save",
    "task_type",
    CLASSIFIER_SETTINGS,
];

/// What `adapter_config.json` says.
#[derive(Debug)]
pub(super) struct StoredConfig {
    pub(super) kind: AdapterKind,
    pub(super) rank: NonZeroUsize,
    pub(super) alpha: Positive,
    pub(super) scaling: Scaling,
    pub(super) dropout: ProperFraction,
    pub(super) initialization: AdapterInitialization,
    pub(super) base_model: Option<String>,
    /// The modules that are stored whole.
    pub(super) whole: Vec<String>,
    /// What the model is for, as PEFT names it.
    task: Option<String>,
    /// What a classifier's head has besides its layer.
    pub(super) classifier_settings: Option<Value>,
    /// `None` where regular expressions say it.
    meant: Option<Meant>,
    /// In the file's order: PEFT takes the first that fits.
    rank_pattern: Vec<(String, NonZeroUsize)>,
    alpha_pattern: Vec<(String, Positive)>,
}

/// Which layers are adapted, in plain names.
#[derive(Debug)]
struct Meant {
    targets: Targets,
    exclude: Vec<String>,
    blocks: Option<BTreeSet<usize>>,
}

impl StoredConfig {
    /// Reads a configuration. `path` is only for messages.
    pub(super) fn from_json(path: &Path, json: &Value) -> Result<Self, AdapterError> {
        let keys = Keys { path, json: json.as_object() };
        if keys.json.is_none() {
            return Err(keys.wrong("adapter_config.json", "not a JSON object"));
        }
        keys.refuse_what_is_not_supported()?;
        let flag = |key| keys.or(key, false);
        Ok(Self {
            kind: if flag("use_dora")? { AdapterKind::Dora } else { AdapterKind::Lora },
            rank: keys.or("r", DEFAULT_RANK)?,
            alpha: keys.or("lora_alpha", Positive::new(8.0))?,
            scaling: if flag("use_rslora")? { Scaling::RankStabilized } else { Scaling::Standard },
            dropout: keys.or("lora_dropout", ProperFraction::new(0.0))?,
            initialization: keys.initialization()?,
            base_model: keys.optional("base_model_name_or_path")?,
            whole: keys.or("modules_to_save", Vec::new())?,
            task: keys.optional("task_type")?,
            classifier_settings: keys.get(CLASSIFIER_SETTINGS).cloned(),
            meant: keys.meant()?,
            rank_pattern: keys.pattern("rank_pattern")?,
            alpha_pattern: keys.pattern("alpha_pattern")?,
        })
    }

    /// What the head of the adapter reads, if the configuration says so.
    pub(super) fn classifier_kind(&self) -> Option<ClassifierKind> {
        match self.task.as_deref() {
            Some(SEQUENCE_TASK) => Some(ClassifierKind::Sequence),
            Some(TOKEN_TASK) => Some(ClassifierKind::Token),
            _ => None,
        }
    }

    /// Whether the configuration means a layer, or `None` if only PEFT's regular expressions could tell.
    pub(super) fn means(&self, module: &AdaptableModule) -> Option<bool> {
        let meant = self.meant.as_ref()?;
        let targeted = match &meant.targets {
            Targets::FamilyDefault => module.is_family_default(),
            Targets::AllLinear => module.block.is_some(),
            Targets::Modules(names) => names.iter().any(|name| module.is_called(name)),
        };
        let in_blocks = meant
            .blocks
            .as_ref()
            .is_none_or(|blocks| module.block.is_some_and(|block| blocks.contains(&block)));
        Some(targeted && in_blocks && !meant.exclude.iter().any(|name| module.is_called(name)))
    }

    /// The rank of a layer, or `None` if only PEFT's regular expressions could tell.
    pub(super) fn rank_of(&self, module: &AdaptableModule) -> Option<NonZeroUsize> {
        first_match(&self.rank_pattern, module).ok().map(|found| found.unwrap_or(self.rank))
    }

    /// The factor of a layer. `path` is only for messages.
    pub(super) fn alpha_of(&self, path: &Path, module: &AdaptableModule) -> Result<Positive, AdapterError> {
        match first_match(&self.alpha_pattern, module) {
            Ok(found) => Ok(found.unwrap_or(self.alpha)),
            Err(pattern) => {
                let reason =
                    format!("the regular expression `{pattern}` is not supported: write layer names");
                Err(AdapterError::Config { path: path.into(), key: "alpha_pattern".into(), reason })
            }
        }
    }
}

/// The value of the first pattern that means a layer. Fails at a pattern that is not plain.
fn first_match<T: Copy>(patterns: &[(String, T)], module: &AdaptableModule) -> Result<Option<T>, String> {
    for (pattern, value) in patterns {
        match plain(pattern) {
            Some(name) if module.is_called(&name) => return Ok(Some(*value)),
            Some(_) => {}
            None => return Err(pattern.clone()),
        }
    }
    Ok(None)
}

/// The name that a regular expression stands for, if it stands for one.
fn plain(pattern: &str) -> Option<String> {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let name = pattern.strip_suffix('$').unwrap_or(pattern).replace("\\.", ".");
    (!name.contains(['\\', '^', '$', '*', '+', '?', '{', '}', '[', ']', '|', '(', ')'])).then_some(name)
}

/// Reads keys and says which of them are wrong.
struct Keys<'a> {
    path: &'a Path,
    json: Option<&'a Map<String, Value>>,
}

impl Keys<'_> {
    fn wrong(&self, key: &str, reason: impl Display) -> AdapterError {
        AdapterError::Config { path: self.path.into(), key: key.into(), reason: reason.to_string() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.json.and_then(|json| json.get(key)).filter(|value| !value.is_null())
    }

    fn optional<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, AdapterError> {
        let read = |value: &Value| {
            T::deserialize(value).map_err(|error| self.wrong(key, format_args!("{value}: {error}")))
        };
        self.get(key).map(read).transpose()
    }

    fn or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T, AdapterError> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// Fails at the first key that asks for what this library does not do. A key that is not known is one that a later
    /// version of PEFT brought: it does nothing while it is null, false or empty.
    fn refuse_what_is_not_supported(&self) -> Result<(), AdapterError> {
        match self.or::<String>("peft_type", String::new())?.as_str() {
            "LORA" => {}
            other => {
                return Err(self.wrong("peft_type", format_args!("`{other}` is not supported, only LORA")));
            }
        }
        let bias = self.or::<String>("bias", "none".into())?;
        if bias != "none" {
            return Err(self.wrong("bias", format_args!("`{bias}`: trained biases are not supported")));
        }
        for (key, value) in self.json.into_iter().flatten() {
            let says_nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(object) => object.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            if !says_nothing && !HARMLESS.contains(&key.as_str()) && !USED.contains(&key.as_str()) {
                return Err(self.wrong(key, format_args!("{value} is not supported")));
            }
        }
        Ok(())
    }

    /// Some initialisations move part of the base weights into the adapter, so that it fits no original model.
    fn initialization(&self) -> Result<AdapterInitialization, AdapterError> {
        match self.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => Ok(AdapterInitialization::KaimingUniform),
            Some(Value::String(name)) => match name.to_lowercase().as_str() {
                "gaussian" => Ok(AdapterInitialization::Gaussian),
                "true" | "false" | "eva" | "orthogonal" => Ok(AdapterInitialization::KaimingUniform),
                _ => {
                    let reason = format!(
                        "`{name}` changes the base weights: in PEFT, save with \
                         path_initial_model_for_weight_conversion to get an ordinary adapter"
                    );
                    Err(self.wrong("init_lora_weights", reason))
                }
            },
            Some(other) => Err(self.wrong("init_lora_weights", format_args!("{other} is not supported"))),
        }
    }

    fn meant(&self) -> Result<Option<Meant>, AdapterError> {
        let targets = match self.get("target_modules") {
            None => Targets::FamilyDefault,
            Some(Value::String(name)) if name.to_lowercase() == "all-linear" => Targets::AllLinear,
            Some(Value::String(_)) => return Ok(None),
            Some(_) => Targets::Modules(self.or("target_modules", BTreeSet::new())?),
        };
        let pattern = self.get("layers_pattern");
        let has_pattern = pattern.is_some_and(|value| *value != json!([]) && *value != json!(""));
        if has_pattern || self.get("exclude_modules").is_some_and(Value::is_string) {
            return Ok(None);
        }
        let blocks = match self.get("layers_to_transform") {
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(Value::Number(_)) => {
                self.optional("layers_to_transform")?.map(|block| BTreeSet::from([block]))
            }
            _ => self.optional("layers_to_transform")?,
        };
        Ok(Some(Meant { targets, exclude: self.or("exclude_modules", Vec::new())?, blocks }))
    }

    fn pattern<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<(String, T)>, AdapterError> {
        let entries = self.or(key, Map::new())?;
        let read = |(name, value): (String, Value)| {
            let value = T::deserialize(&value)
                .map_err(|error| self.wrong(key, format_args!("{name}: {value}: {error}")))?;
            Ok((name, value))
        };
        entries.into_iter().map(read).collect()
    }
}

/// What is written of an adapter besides its configuration.
pub(super) struct Written<'a> {
    /// Names of the layers that have one.
    pub(super) targets: BTreeSet<String>,
    /// Names of the modules that are stored whole.
    pub(super) whole: BTreeSet<String>,
    /// Whether these have a head in them that is the embedding.
    pub(super) is_tied: bool,
    /// The head of a classifier.
    pub(super) head: Option<&'a Classifier>,
    /// What the adapter is to be loaded onto.
    pub(super) base_model: Option<&'a str>,
}

/// What PEFT needs to load an adapter.
pub(super) fn to_json(attached: &Attached, written: &Written<'_>) -> Value {
    let Attached { family, config, .. } = attached;
    let Written { targets, whole, is_tied, head, base_model } = written;
    let initialization = match config.initialization {
        AdapterInitialization::KaimingUniform => json!(true),
        AdapterInitialization::Gaussian => json!("gaussian"),
    };
    let task = match head.map(|head| head.kind) {
        None => "CAUSAL_LM",
        Some(ClassifierKind::Sequence) => SEQUENCE_TASK,
        Some(ClassifierKind::Token) => TOKEN_TASK,
    };
    let mut json = json!({
        "alpha_pattern": longest_first(&config.alpha_pattern, |alpha| number(alpha.get())),
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": family.is_transposed(),
        "inference_mode": true,
        "init_lora_weights": initialization,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": number(config.alpha.get()),
        "lora_dropout": config.dropout,
        "modules_to_save": Some(whole).filter(|whole| !whole.is_empty()),
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": longest_first(&config.rank_pattern, |rank| json!(rank)),
        "revision": null,
        "target_modules": targets,
        "task_type": task,
        "use_dora": config.kind == AdapterKind::Dora,
        "use_rslora": config.scaling == Scaling::RankStabilized,
    });
    if let Some(settings) = head.and_then(|head| head.settings.as_ref()) {
        json[CLASSIFIER_SETTINGS] = settings.clone();
    }
    // Other versions of PEFT do not know the key.
    if *is_tied {
        json["ensure_weight_tying"] = true.into();
    }
    json
}

/// PEFT takes the first pattern that fits, we the longest.
fn longest_first<T>(patterns: &BTreeMap<String, T>, value: impl Fn(&T) -> Value) -> Value {
    let mut entries: Vec<_> = patterns.iter().collect();
    entries.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    entries.into_iter().map(|(name, of)| (name.clone(), value(of))).collect::<Map<_, _>>().into()
}

/// As PEFT writes it: whole numbers without a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value < 2f64.powi(53) { json!(value as u64) } else { json!(value) }
}
