//! Which data a run trains on and which it is evaluated on.

use std::num::NonZeroUsize;

use align_model::{
    data::{DatasetConfig, Located},
    number::ProperFraction,
};
use anyhow::{Result, ensure};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::method::Plan;

/// The data of a run. In a run file it is a table with these keys, or what [`DatasetConfig`] can be: that is then what
/// the run trains on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DataTable {
    /// What the run trains on.
    pub(crate) train: DatasetConfig,
    /// What it is evaluated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evaluation: Option<DatasetConfig>,
    /// The share of the training data that is set apart for evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evaluation_share: Option<ProperFraction>,
    /// Seed of the choice of that share.
    pub(crate) split_seed: u64,
    /// How the training data are read while the run lasts; before it, into memory, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streaming: Option<Streaming>,
}

/// Training data that need not fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Streaming {
    /// Records that are held in memory; each that is learnt is drawn from them.
    pub(crate) window: NonZeroUsize,
}

impl DataTable {
    /// Checks what the types cannot.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.evaluation.is_none() || self.evaluation_share.is_none(),
            "data.evaluation and data.evaluation_share contradict each other: leave one out"
        );
        ensure!(
            self.evaluation_share.is_none_or(|share| share.get() > 0.0),
            "data.evaluation_share = 0 sets nothing apart: leave it out"
        );
        Ok(())
    }

    /// Checks that what is to be done with streamed data can be done without having them all.
    /// `settings` is the name of the table of settings.
    pub(crate) fn check_streaming(&self, settings: &str, plan: &Plan) -> Result<()> {
        if self.streaming.is_none() {
            return Ok(());
        }
        ensure!(
            plan.fixed_steps().is_some(),
            "data.streaming needs {settings}.duration = {{ steps = N }}: how many samples a stream has is not known beforehand"
        );
        ensure!(
            plan.packing.is_none(),
            "{settings}.packing needs all samples at once, and data.streaming never has them: leave one out"
        );
        ensure!(
            self.evaluation_share.is_none(),
            "data.evaluation_share needs all records at once, and data.streaming never has them: leave one out, or name a file as data.evaluation"
        );
        Ok(())
    }

    /// Whether there is anything to evaluate on.
    pub(crate) fn has_evaluation(&self) -> bool {
        self.evaluation.is_some() || self.evaluation_share.is_some()
    }

    /// Parts records into those to train on and those to evaluate on, both in their order.
    pub(crate) fn split<R>(&self, records: Vec<Located<R>>) -> (Vec<Located<R>>, Vec<Located<R>>) {
        let Some(share) = self.evaluation_share else { return (records, Vec::new()) };
        let count = ((records.len() as f64 * share.get()).round() as usize).clamp(1, records.len());
        let mut order: Vec<usize> = (0..records.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.split_seed);
        for place in 0..count {
            let other = place + (rng.next_u64() % (order.len() - place) as u64) as usize;
            order.swap(place, other);
        }
        let mut is_apart = vec![false; records.len()];
        order[..count].iter().for_each(|&index| is_apart[index] = true);
        let (apart, kept): (Vec<_>, Vec<_>) =
            records.into_iter().zip(is_apart).partition(|(_, apart)| *apart);
        let alone = |both: Vec<(Located<R>, bool)>| both.into_iter().map(|(record, _)| record).collect();
        (alone(kept), alone(apart))
    }
}

impl From<DatasetConfig> for DataTable {
    fn from(train: DatasetConfig) -> Self {
        let split_seed = default_seed();
        Self { train, evaluation: None, evaluation_share: None, split_seed, streaming: None }
    }
}

fn default_seed() -> u64 {
    42
}

impl<'de> Deserialize<'de> for DataTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            train: DatasetConfig,
            evaluation: Option<DatasetConfig>,
            evaluation_share: Option<ProperFraction>,
            #[serde(default = "default_seed")]
            split_seed: u64,
            streaming: Option<Streaming>,
        }
        let value = Value::deserialize(deserializer)?;
        let has = |key: &str| value.get(key).is_some();
        if !value.is_object() || (has("path") || has("sources")) && !has("train") {
            return Ok(serde_json::from_value::<DatasetConfig>(value).map_err(de::Error::custom)?.into());
        }
        let parts: Parts = serde_json::from_value(value).map_err(de::Error::custom)?;
        let Parts { train, evaluation, evaluation_share, split_seed, streaming } = parts;
        Ok(Self { train, evaluation, evaluation_share, split_seed, streaming })
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use align_model::sft::{Duration, Packing, SftConfig};
    use serde_json::Map;

    use super::*;
    use crate::method::Settings as _;

    fn read(text: &str) -> Result<DataTable, toml::de::Error> {
        #[derive(Deserialize)]
        struct Outer {
            data: DataTable,
        }
        toml::from_str::<Outer>(text).map(|outer| outer.data)
    }

    #[test]
    fn the_short_forms_are_the_long_one() {
        let long = read("[data]\ntrain = { sources = [{ path = \"a.jsonl\" }] }\n").unwrap();
        for short in [
            "data = \"a.jsonl\"",
            "data = [\"a.jsonl\"]",
            "[data]\npath = \"a.jsonl\"",
            "[data]\ntrain = \"a.jsonl\"",
        ] {
            assert_eq!(read(short).unwrap(), long, "{short}");
        }
        assert!(
            read("[data]\ntrain = \"a\"\npth = 1\n").unwrap_err().message().contains("unknown field `pth`")
        );
        assert!(
            read("[data]\nevaluation = \"a\"\n").unwrap_err().message().contains("missing field `train`")
        );
    }

    #[test]
    fn what_needs_all_records_does_not_go_with_a_stream() {
        let stream = read("[data]\ntrain = \"a\"\nstreaming = { window = 9 }\n").unwrap();
        let refused = |table: &DataTable, sft: &SftConfig| {
            table.check_streaming("sft", &sft.plan()).unwrap_err().to_string()
        };
        assert!(refused(&stream, &SftConfig::default()).starts_with("data.streaming needs sft.duration"));
        let steps = Duration::Steps(std::num::NonZeroU64::MIN);
        let sft = SftConfig { duration: steps, ..SftConfig::default() };
        stream.check_streaming("sft", &sft.plan()).unwrap();
        let packed = SftConfig { packing: Some(Packing::Wrapped), ..sft.clone() };
        assert!(refused(&stream, &packed).starts_with("sft.packing needs"));
        let split = DataTable { evaluation_share: Some(ProperFraction::new(0.1)), ..stream };
        assert!(refused(&split, &sft).starts_with("data.evaluation_share needs"));
        assert!(read("[data]\ntrain = \"a\"\nstreaming = { window = 0 }\n").is_err());
        assert!(read("[data]\ntrain = \"a\"\nstreaming = {}\n").unwrap_err().message().contains("`window`"));
    }

    #[test]
    fn a_share_is_set_apart_and_the_seed_decides_which() {
        let path: Arc<Path> = Path::new("a").into();
        let records = |count: usize| {
            let located =
                |line| Located { source: 0, path: path.clone(), line, record: line, extra: Map::new() };
            (0..count).map(located).collect::<Vec<_>>()
        };
        let split = |seed: u64, count: usize| {
            let text = format!("[data]\ntrain = \"a\"\nevaluation_share = 0.2\nsplit_seed = {seed}\n");
            let (kept, apart) = read(&text).unwrap().split(records(count));
            let lines = |all: Vec<Located<usize>>| all.into_iter().map(|one| one.line).collect::<Vec<_>>();
            (lines(kept), lines(apart))
        };
        let (kept, apart) = split(1, 50);
        assert_eq!((kept.len(), apart.len()), (40, 10));
        assert!(kept.is_sorted() && apart.is_sorted());
        let mut all = [kept, apart.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert_eq!(split(1, 50).1, apart);
        assert_ne!(split(2, 50).1, apart);
        assert_eq!(split(1, 2).1.len(), 1, "never nothing");
    }
}
