//! The directory of a run: records and checkpoints while it lasts, a model when it has succeeded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

/// Names of files that a run writes, whole or up to their first dot or hyphen.
const OWN_FILES: [&str; 15] = [
    "adapter",
    "adapter_model",
    "chat_template",
    "config",
    "generation_config",
    "metrics",
    "model",
    "reference",
    "report",
    "rollouts",
    "run",
    "samples",
    "special_tokens_map",
    "timing",
    "tokenizer",
];

/// Directories that a run writes, whole or up to their first hyphen.
const OWN_DIRECTORIES: [&str; 3] = ["adapter", "checkpoint", "tensorboard"];

/// The file of what a policy wrote in order to learn.
pub(crate) const ROLLOUTS: &str = "rollouts.jsonl";

/// What to do about a run that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Leave it alone and stop.
    New,
    /// Remove it.
    Overwrite,
    /// Go on with it.
    Resume,
}

/// An output directory that may be written into.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    entry: Entry,
}

impl RunDirectory {
    /// Checks that the directory is new or empty, or may be overwritten or continued, and does not hold the model to
    /// start from. Nothing is written yet.
    pub(crate) fn check(path: &Path, entry: Entry, model: &Path) -> Result<Self> {
        let shown = path.display();
        if path.exists() {
            let mut entries =
                fs::read_dir(path).with_context(|| format!("cannot use {shown} as output directory"))?;
            let is_new = entry != Entry::New || entries.next().is_none();
            if let (false, Some(newest)) = (is_new, checkpoints(path).pop()) {
                bail!(
                    "the output directory {shown} holds a run with {newest}: give --resume to go on with it, or --overwrite to begin anew"
                );
            }
            ensure!(
                is_new,
                "the output directory {shown} is not empty: name another one as `out`, or give --overwrite"
            );
            let (out, model) = (fs::canonicalize(path)?, fs::canonicalize(model).unwrap_or_default());
            ensure!(!model.starts_with(&out), "the output directory {shown} holds the model to start from");
        }
        Ok(Self { path: path.into(), entry })
    }

    /// Creates the directory, and removes what an earlier run left there unless this one goes on with it.
    pub(crate) fn begin(&self) -> Result<()> {
        let failed = || format!("cannot prepare the output directory {}", self.path.display());
        fs::create_dir_all(&self.path).with_context(failed)?;
        if self.entry == Entry::Resume {
            return Ok(());
        }
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            let path = entry.with_context(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && is_own_directory(&name) {
                fs::remove_dir_all(&path).with_context(failed)?;
            } else if path.is_file() && is_own_file(&name) {
                fs::remove_file(&path).with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Writes the settings of the run.
    pub(crate) fn write_settings(&self, settings: &str) -> Result<()> {
        crate::files::write(&self.path.join("run.toml"), settings)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the run goes on with what is there.
    pub(crate) fn resumes(&self) -> bool {
        self.entry == Entry::Resume
    }

    /// What is measured, a line a step.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// When, a line a step.
    pub(crate) fn timing(&self) -> PathBuf {
        self.path.join("timing.jsonl")
    }

    /// What the model writes while it learns.
    pub(crate) fn samples(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// What it writes in order to learn, and what it gets for it.
    pub(crate) fn rollouts(&self) -> PathBuf {
        self.path.join(ROLLOUTS)
    }

    /// The directory for `TensorBoard`.
    pub(crate) fn events(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The page that shows the run.
    pub(crate) fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// The names of the checkpoints, oldest first.
    pub(crate) fn checkpoints(&self) -> Vec<String> {
        checkpoints(&self.path)
    }

    /// Lets `save` fill a directory beside the run's own files and moves all of it among them, `config.json` last: what
    /// has one is a whole model.
    pub(crate) fn publish(&self, save: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let unfinished = tempfile::Builder::new().prefix(".unfinished").tempdir_in(&self.path)?;
        save(unfinished.path())?;
        let mut files: Vec<PathBuf> =
            fs::read_dir(unfinished.path())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort_by_key(|file| file.ends_with("config.json"));
        for file in files {
            let Some(name) = file.file_name() else { bail!("{} is no file", file.display()) };
            fs::rename(&file, self.path.join(name))?;
        }
        Ok(())
    }
}

/// A run's settings as TOML.
pub(crate) fn settings_text(run: &impl Serialize) -> Result<String> {
    toml::to_string(run).context("cannot write the run's settings as TOML")
}

/// The names of the checkpoints in a directory, oldest first.
fn checkpoints(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("checkpoint-")).collect();
    names.sort();
    names
}

fn is_own_file(name: &str) -> bool {
    let stem = name.split(['.', '-']).next().unwrap_or(name).trim_end_matches("_config");
    OWN_FILES.contains(&stem)
}

fn is_own_directory(name: &str) -> bool {
    OWN_DIRECTORIES.contains(&name.split('-').next().unwrap_or(name))
}
