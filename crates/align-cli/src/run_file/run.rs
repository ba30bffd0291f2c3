//! What describes a run of any method.

use std::{fmt, marker::PhantomData, path::PathBuf};

use align_model::{
    checkpoint::CheckpointConfig,
    decoder::ComputeDtype,
    device::DeviceName,
    pretrained::SavedDtype,
    train::{EarlyStoppingConfig, EmaConfig, EvaluationConfig},
};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::{self, SerializeMap as _},
};
use serde_json::{Value, json};

use super::{
    adapter::AdapterTable,
    data::DataTable,
    date::RunDate,
    rewards::{GoldTable, RewardsTable},
    teacher::TeacherTable,
};
use crate::{
    method::{Around, LearnsFrom, ModelKind, Settings},
    training::{findings::Findings, samples::SamplesTable},
};

/// A run of a method with these settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run<C> {
    /// A Hugging Face directory or a GGUF file.
    pub(crate) model: PathBuf,
    /// The directory that everything is written into.
    pub(crate) out: PathBuf,
    /// Where to compute.
    pub(crate) device: DeviceName,
    /// What chat templates that ask for the date are told; when the run began, unless given.
    pub(crate) date: Option<RunDate>,
    /// What it learns from.
    pub(crate) data: DataTable,
    /// How to train: the table that has the method's name.
    pub(crate) method: C,
    /// The adapter that is trained instead of the model; none unless given.
    pub(crate) adapter: Option<AdapterTable>,
    /// What is computed in which number format.
    pub(crate) memory: MemoryTable,
    /// When to evaluate; has a default where there is evaluation data.
    pub(crate) evaluation: Option<EvaluationConfig>,
    /// When to save, and what is kept.
    pub(crate) checkpoints: CheckpointConfig,
    /// When to end early; never unless given.
    pub(crate) early_stopping: Option<EarlyStoppingConfig>,
    /// How the parameters are averaged; not unless given.
    pub(crate) ema: Option<EmaConfig>,
    /// What the model is asked while it learns; nothing unless given.
    pub(crate) samples: Option<SamplesTable>,
    /// How the model is written.
    pub(crate) save: SaveTable,
    /// What it learns from besides data; only where the method learns from rewards.
    pub(crate) rewards: RewardsTable,
    /// A better measure than the rewards, that nothing is trained on; only where the method learns from rewards.
    pub(crate) gold: Option<GoldTable>,
    /// What a critic is; only where the method has one.
    pub(crate) critic: Option<CriticTable>,
    /// Who is learnt from; only where the method learns from a teacher.
    pub(crate) teacher: Option<TeacherTable>,
}

/// What learns which rewards to expect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CriticTable {
    /// A model of its own, which begins as the one that is trained, with its adapter, and expects 0.
    #[default]
    Policy,
    /// A model of its own, which begins as a reward model.
    RewardModel {
        /// The reward model's directory, or its name on the Hub.
        from: PathBuf,
    },
    /// A head on the model that is trained.
    Shared,
}

/// How a trained model is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SaveTable {
    /// Number format of the weights of a model; an adapter's are float32.
    pub(crate) dtype: SavedDtype,
    /// What is written of a model with an adapter; unless given, the adapter alone, or of a reward model all, merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) form: Option<SavedForm>,
}

/// How memory is saved; the method's `recompute` and `adapter.base` save more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MemoryTable {
    /// Number format of activations and products; parameters and their updates are float32 in any case.
    pub(crate) compute: ComputeDtype,
}

/// What is written of a model with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SavedForm {
    /// The adapter, as PEFT does; of a reward model also its head.
    Adapter,
    /// A model whose weights have taken the adapter in.
    Merged,
    /// That model, and the adapter in the directory `adapter` beside it.
    Both,
}

impl<C: Settings> Run<C> {
    /// Fills in what depends on the rest and on the run that is continued, if one is.
    pub(crate) fn resolve(mut self, resumes: bool) -> Self {
        if self.data.has_evaluation() {
            self.evaluation.get_or_insert_default();
        }
        let begun = resumes.then(|| RunDate::of_run(&self.out.join("run.toml"))).flatten();
        self.date = Some(self.date.or(begun).unwrap_or_else(RunDate::now));
        self
    }

    /// Checks the relations between settings.
    pub(crate) fn check(&self, findings: &mut Findings) {
        findings.keep(self.method.check().with_context(|| format!("[{}] contradicts itself", C::NAME)));
        let around =
            Around { has_adapter: self.adapter.is_some(), is_streamed: self.data.streaming.is_some() };
        findings.keep(self.method.check_around(around));
        findings.keep(self.data.check());
        findings.keep(self.data.check_streaming(C::NAME, &self.method.plan()));
        let every = self.evaluation.as_ref().map(|evaluation| evaluation.every);
        findings.keep(self.checkpoints.check(every).context("[checkpoints] contradicts [evaluation]"));
        findings.keep(self.check_evaluation());
        findings.keep(self.check_samples());
        findings.keep(self.adapter.as_ref().map_or(Ok(()), AdapterTable::check));
        findings.keep(self.check_save());
        findings.keep(self.check_rewards());
        findings.keep(self.check_teacher());
    }

    fn check_teacher(&self) -> Result<()> {
        ensure!(
            C::LEARNS_FROM != LearnsFrom::Teacher || self.teacher.is_some(),
            "there is nobody to learn from: add [teacher], with the model's place as `path`"
        );
        Ok(())
    }

    fn check_rewards(&self) -> Result<()> {
        if let Some(gold) = &self.gold {
            ensure!(!gold.rewards.is_empty(), "gold.rewards is empty: say what the better measure is");
            ensure!(
                !gold.rewards.has_costs(),
                "gold.rewards has a cost, and nothing is trained on them: give it a negative weight"
            );
            ensure!(
                self.data.has_evaluation(),
                "[gold] needs prompts that nothing is trained on: set data.evaluation or data.evaluation_share"
            );
        }
        ensure!(
            !C::LEARNS_FROM.has_rewards() || !self.rewards.is_empty(),
            "there is nothing to learn from: add [[rewards]], such as kind = \"exact_match\""
        );
        Ok(())
    }

    fn check_evaluation(&self) -> Result<()> {
        let advice = "set data.evaluation or data.evaluation_share";
        if self.data.has_evaluation() {
            return Ok(());
        }
        ensure!(self.evaluation.is_none(), "[evaluation] needs data to evaluate on: {advice}");
        if let Some(stopping) = self.early_stopping.as_ref().filter(|one| one.metric.starts_with("eval_")) {
            bail!("early_stopping.metric = \"{}\" needs data to evaluate on: {advice}", stopping.metric);
        }
        Ok(())
    }

    fn check_samples(&self) -> Result<()> {
        ensure!(
            self.samples.is_none() || C::MODEL == ModelKind::Language,
            "[samples] is for models that write, and a reward model writes nothing: leave it out"
        );
        let empty = self.samples.as_ref().is_some_and(|samples| samples.prompts.is_empty());
        ensure!(!empty, "[samples] has no prompts: set samples.prompts, or leave the table out");
        Ok(())
    }

    fn check_save(&self) -> Result<()> {
        let writes_model = self.adapter.is_none() || self.saved_form() != Some(SavedForm::Adapter);
        ensure!(
            self.adapter.is_some() || self.save.form.is_none(),
            "save.form is for models with an adapter: add [adapter], or leave save.form out"
        );
        ensure!(
            writes_model || self.save.dtype == SavedDtype::default(),
            "save.dtype is for models, and save.form = \"adapter\" writes none: leave one out"
        );
        Ok(())
    }

    /// What is written of the adapter, if there is one.
    pub(crate) fn saved_form(&self) -> Option<SavedForm> {
        let default = match C::MODEL {
            ModelKind::Language => SavedForm::Adapter,
            ModelKind::Reward => SavedForm::Merged,
        };
        self.adapter.as_ref().map(|_| self.save.form.unwrap_or(default))
    }

    /// The settings that decide every bit of the result, besides model and data themselves.
    pub(crate) fn deciding(&self, total_steps: u64) -> Result<Value> {
        // How often a run is evaluated matters only to when it ends early.
        let evaluation = self.early_stopping.as_ref().and(self.evaluation.as_ref());
        let mut deciding = json!({
            "device": self.device.to_string(),
            "total_steps": total_steps,
            C::NAME: serde_json::to_value(&self.method)?,
            "adapter": serde_json::to_value(&self.adapter)?,
            "memory": serde_json::to_value(&self.memory)?,
            "evaluation": serde_json::to_value(evaluation)?,
            "early_stopping": serde_json::to_value(&self.early_stopping)?,
            "ema": serde_json::to_value(&self.ema)?,
        });
        if let Some(streaming) = self.data.streaming {
            deciding["streaming"] = serde_json::to_value(streaming)?;
        }
        if C::LEARNS_FROM.has_rewards() {
            deciding["rewards"] = serde_json::to_value(&self.rewards)?;
            deciding["gold"] = serde_json::to_value(&self.gold)?;
            deciding["critic"] = serde_json::to_value(&self.critic)?;
        }
        if let Some(teacher) = &self.teacher {
            deciding["teacher"] = serde_json::to_value(teacher)?;
        }
        Ok(deciding)
    }
}

impl<C: Settings> Run<C> {
    /// The first is only for methods that learn from a teacher, the last three for those that learn from rewards, and the
    /// very last for those with a critic.
    const KEYS: [&'static str; 18] = [
        "teacher",
        "model",
        "out",
        "device",
        "date",
        "data",
        C::NAME,
        "adapter",
        "memory",
        "evaluation",
        "checkpoints",
        "early_stopping",
        "ema",
        "samples",
        "save",
        "rewards",
        "gold",
        "critic",
    ];
    const EXPECTED: &'static [&'static str] = match C::LEARNS_FROM {
        LearnsFrom::Teacher => Self::KEYS.split_at(15).0,
        LearnsFrom::Data => Self::KEYS.split_at(15).0.split_at(1).1,
        LearnsFrom::Rewards => Self::KEYS.split_at(17).0.split_at(1).1,
        LearnsFrom::RewardsAndValues => Self::KEYS.split_at(1).1,
    };
}

impl<C: Settings> Serialize for Run<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &self.model)?;
        map.serialize_entry("out", &self.out)?;
        map.serialize_entry("device", &self.device)?;
        put(&mut map, "date", self.date.as_ref())?;
        map.serialize_entry("data", &self.data)?;
        map.serialize_entry(C::NAME, &self.method)?;
        put(&mut map, "adapter", self.adapter.as_ref())?;
        map.serialize_entry("memory", &self.memory)?;
        put(&mut map, "evaluation", self.evaluation.as_ref())?;
        map.serialize_entry("checkpoints", &self.checkpoints)?;
        put(&mut map, "early_stopping", self.early_stopping.as_ref())?;
        put(&mut map, "ema", self.ema.as_ref())?;
        put(&mut map, "samples", self.samples.as_ref())?;
        put(&mut map, "teacher", self.teacher.as_ref())?;
        map.serialize_entry("save", &self.save)?;
        if C::LEARNS_FROM.has_rewards() {
            put(&mut map, "gold", self.gold.as_ref())?;
            put(&mut map, "critic", self.critic.as_ref())?;
            map.serialize_entry("rewards", &self.rewards)?;
        }
        map.end()
    }
}

fn put<M: ser::SerializeMap, T: Serialize>(
    map: &mut M,
    key: &str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(key, value))
}

impl<'de, C: Settings> Deserialize<'de> for Run<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RunVisitor(PhantomData))
    }
}

/// A key of a run file; the name of the table of settings is the method's.
struct Key<C>(String, PhantomData<C>);

impl<'de, C: Settings> Deserialize<'de> for Key<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        if Run::<C>::EXPECTED.contains(&key.as_str()) {
            return Ok(Self(key, PhantomData));
        }
        Err(de::Error::unknown_field(&key, Run::<C>::EXPECTED))
    }
}

struct RunVisitor<C>(PhantomData<C>);

impl<'de, C: Settings> Visitor<'de> for RunVisitor<C> {
    type Value = Run<C>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a run file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Run<C>, A::Error> {
        let (mut model, mut out, mut data) = (None, None, None);
        let (mut device, mut method) = (DeviceName::FLEX, C::default());
        let (mut moment, mut adapter, mut evaluation, mut early_stopping) = (None, None, None, None);
        let (mut ema, mut samples, mut rewards) = (None, None, RewardsTable::default());
        let (mut gold, mut critic, mut teacher) = (None, None, None);
        let (mut memory, mut checkpoints, mut save) =
            (MemoryTable::default(), CheckpointConfig::default(), SaveTable::default());
        while let Some(Key(key, _)) = map.next_key::<Key<C>>()? {
            match key.as_str() {
                "model" => model = Some(map.next_value()?),
                "out" => out = Some(map.next_value()?),
                "device" => device = map.next_value()?,
                "date" => moment = Some(map.next_value()?),
                "data" => data = Some(map.next_value()?),
                "adapter" => adapter = Some(map.next_value()?),
                "memory" => memory = map.next_value()?,
                "evaluation" => evaluation = Some(map.next_value()?),
                "checkpoints" => checkpoints = map.next_value()?,
                "early_stopping" => early_stopping = Some(map.next_value()?),
                "ema" => ema = Some(map.next_value()?),
                "samples" => samples = Some(map.next_value()?),
                "save" => save = map.next_value()?,
                "rewards" => rewards = map.next_value()?,
                "gold" => gold = Some(map.next_value()?),
                "critic" => critic = Some(map.next_value()?),
                "teacher" => teacher = Some(map.next_value()?),
                _ => method = map.next_value()?,
            }
        }
        let missing = de::Error::missing_field;
        Ok(Run {
            model: model.ok_or_else(|| missing("model"))?,
            out: out.ok_or_else(|| missing("out"))?,
            device,
            date: moment,
            data: data.ok_or_else(|| missing("data"))?,
            method,
            adapter,
            memory,
            evaluation,
            checkpoints,
            early_stopping,
            ema,
            samples,
            save,
            rewards,
            gold,
            critic,
            teacher,
        })
    }
}
