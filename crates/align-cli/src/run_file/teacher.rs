//! The model that another one learns from.

use std::path::PathBuf;

use align_model::{
    decoder::{ComputeDtype, Decoder},
    pretrained::Checkpoint,
};
use anyhow::{Context as _, Result};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::adapter::{AdapterTable, attach_saved};
use crate::model;

/// A model that is not trained itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherTable {
    /// A Hugging Face directory, a GGUF file, or a name on the Hub.
    pub(crate) path: PathBuf,
    /// A PEFT adapter to put on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) adapter: Option<PathBuf>,
}

impl TeacherTable {
    /// Checks of its adapter what can be checked without the model.
    pub(crate) fn check_adapter(&self) -> Result<()> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        AdapterTable::Saved { from: adapter.clone() }.check().context("teacher.adapter")
    }

    /// Its files.
    pub(crate) fn open(&self) -> Result<Checkpoint> {
        model::open(&self.path).context("teacher.path")
    }

    /// The model, ready to be asked about this many tokens.
    pub(crate) fn load(&self, tokens: usize, compute: ComputeDtype, device: &Device) -> Result<Decoder> {
        let checkpoint = self.open()?;
        let failed = || format!("cannot load the teacher {}", self.path.display());
        let decoder = checkpoint.load(device).with_context(failed)?;
        let decoder = match &self.adapter {
            Some(adapter) => {
                let family = checkpoint.architecture().family();
                attach_saved(decoder, family, adapter).context("teacher.adapter")?.merge_adapter()?
            }
            None => decoder,
        };
        let decoder =
            if decoder.config().vocab_size > tokens { decoder.with_vocabulary(tokens) } else { decoder };
        decoder.with_compute_dtype(compute).context("memory.compute")
    }
}
