//! The run file of supervised fine-tuning.

use std::path::PathBuf;

use align_model::{
    checkpoint::CheckpointConfig,
    decoder::ComputeDtype,
    device::DeviceName,
    pretrained::SavedDtype,
    sft::SftConfig,
    train::{EarlyStoppingConfig, EmaConfig, EvaluationConfig},
};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{adapter::AdapterTable, data::DataTable, date::RunDate};
use crate::training::{findings::Findings, samples::SamplesTable};

/// A supervised fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SftRun {
    /// A Hugging Face directory or a GGUF file.
    pub(crate) model: PathBuf,
    /// The directory that everything is written into.
    pub(crate) out: PathBuf,
    /// Where to compute.
    #[serde(default = "flex")]
    pub(crate) device: DeviceName,
    /// What chat templates that ask for the date are told; when the run began, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) date: Option<RunDate>,
    /// Demonstrations.
    pub(crate) data: DataTable,
    /// How to train.
    #[serde(default)]
    pub(crate) sft: SftConfig,
    /// The adapter that is trained instead of the model; none unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) adapter: Option<AdapterTable>,
    /// What is computed in which number format.
    #[serde(default)]
    pub(crate) memory: MemoryTable,
    /// When to evaluate; has a default where there is evaluation data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evaluation: Option<EvaluationConfig>,
    /// When to save, and what is kept.
    #[serde(default)]
    pub(crate) checkpoints: CheckpointConfig,
    /// When to end early; never unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) early_stopping: Option<EarlyStoppingConfig>,
    /// How the parameters are averaged; not unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ema: Option<EmaConfig>,
    /// What the model is asked while it learns; nothing unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) samples: Option<SamplesTable>,
    /// How the model is written.
    #[serde(default)]
    pub(crate) save: SaveTable,
}

/// How a trained model is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SaveTable {
    /// Number format of the weights of a model; an adapter's are float32.
    pub(crate) dtype: SavedDtype,
    /// What is written of a model with an adapter; the adapter alone, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) form: Option<SavedForm>,
}

/// How memory is saved; `sft.recompute` and `adapter.base` save more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MemoryTable {
    /// Number format of activations and products; parameters and their updates are float32 in any case.
    pub(crate) compute: ComputeDtype,
}

/// What is written of a model with an adapter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SavedForm {
    /// The adapter, as PEFT does.
    #[default]
    Adapter,
    /// A model whose weights have taken the adapter in.
    Merged,
    /// That model, and the adapter in the directory `adapter` beside it.
    Both,
}

fn flex() -> DeviceName {
    DeviceName::FLEX
}

impl SftRun {
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
        findings.keep(self.sft.check().context("[sft] contradicts itself"));
        findings.keep(self.data.check());
        findings.keep(self.data.check_streaming(&self.sft));
        let every = self.evaluation.as_ref().map(|evaluation| evaluation.every);
        findings.keep(self.checkpoints.check(every).context("[checkpoints] contradicts [evaluation]"));
        findings.keep(self.check_evaluation());
        findings.keep(self.check_samples());
        findings.keep(self.adapter.as_ref().map_or(Ok(()), AdapterTable::check));
        findings.keep(self.check_save());
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
        self.adapter.as_ref().map(|_| self.save.form.unwrap_or_default())
    }

    /// The settings that decide every bit of the result, besides model and data themselves.
    pub(crate) fn deciding(&self, total_steps: u64) -> Result<Value> {
        // How often a run is evaluated matters only to when it ends early.
        let evaluation = self.early_stopping.as_ref().and(self.evaluation.as_ref());
        let mut deciding = json!({
            "device": self.device.to_string(),
            "total_steps": total_steps,
            "sft": serde_json::to_value(&self.sft)?,
            "adapter": serde_json::to_value(&self.adapter)?,
            "memory": serde_json::to_value(&self.memory)?,
            "evaluation": serde_json::to_value(evaluation)?,
            "early_stopping": serde_json::to_value(&self.early_stopping)?,
            "ema": serde_json::to_value(&self.ema)?,
        });
        if let Some(streaming) = self.data.streaming {
            deciding["streaming"] = serde_json::to_value(streaming)?;
        }
        Ok(deciding)
    }
}
