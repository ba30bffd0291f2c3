//! The adapter that a run trains instead of the model.

use std::path::{Path, PathBuf};

use align_model::{
    adapter::{LoraConfig, SavedAdapter},
    decoder::Decoder,
    pretrained::Family,
};
use anyhow::{Context as _, Result};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

/// An adapter. In a run file it is a table with the keys of [`LoraConfig`], or one with `from` alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum AdapterTable {
    /// A saved one, which is trained on.
    Saved {
        /// Its directory, as PEFT writes it.
        from: PathBuf,
    },
    /// A new one.
    Fresh(LoraConfig),
}

impl AdapterTable {
    /// A model with this adapter, everything else frozen.
    pub(crate) fn attach(&self, model: Decoder, family: Family, seed: u64) -> Result<Decoder> {
        match self {
            Self::Saved { from } => attach_saved(model, family, from),
            Self::Fresh(config) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                model.with_adapter(family, config, &mut rng).context("[adapter] does not fit the model")
            }
        }
    }

    /// The saved adapter that is trained on, if it is one.
    pub(crate) fn saved(&self) -> Option<&Path> {
        match self {
            Self::Saved { from } => Some(from),
            Self::Fresh(_) => None,
        }
    }

    /// Checks what can be checked without the model.
    pub(crate) fn check(&self) -> Result<()> {
        self.saved().map_or(Ok(()), |from| open(from).map(|_| ()))
    }
}

/// A model with a saved adapter.
pub(crate) fn attach_saved(model: Decoder, family: Family, from: &Path) -> Result<Decoder> {
    let applied = open(from)?.apply(model, family);
    applied.with_context(|| format!("the adapter {} does not fit the model", from.display()))
}

/// Opens a saved adapter.
pub(crate) fn open(from: &Path) -> Result<SavedAdapter> {
    SavedAdapter::open(from).with_context(|| format!("cannot open the adapter {}", from.display()))
}

impl<'de> Deserialize<'de> for AdapterTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let Some(from) = table.remove("from") else {
            let config = serde_json::from_value(Value::Object(table)).map_err(de::Error::custom)?;
            return Ok(Self::Fresh(config));
        };
        if let Some(key) = table.keys().next() {
            return Err(de::Error::custom(format!(
                "`from` takes a saved adapter as it is: leave out `{key}`, or leave out `from`"
            )));
        }
        Ok(Self::Saved { from: serde_json::from_value(from).map_err(de::Error::custom)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_new_or_saved_but_not_both() {
        let read =
            |text: &str| toml::from_str::<AdapterTable>(text).map_err(|error| error.message().to_owned());
        let Ok(AdapterTable::Fresh(config)) = read("rank = 4\nalpha = 16\ntargets = \"all-linear\"") else {
            panic!("a table of settings is a new adapter")
        };
        assert_eq!(config.rank.get(), 4);
        assert_eq!(read("from = \"a\""), Ok(AdapterTable::Saved { from: "a".into() }));
        assert!(read("from = \"a\"\nrank = 4").unwrap_err().contains("leave out `rank`"));
        assert!(read("r = 4").unwrap_err().contains("unknown field `r`"));
    }
}
