//! The directory of a run: metrics while it lasts, a model when it has succeeded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

/// Names of files that a run writes, whole or up to their first dot or hyphen.
const OWN_FILES: [&str; 8] = [
    "chat_template",
    "config",
    "generation_config",
    "metrics",
    "model",
    "run",
    "special_tokens_map",
    "tokenizer",
];

/// An output directory that may be written into.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Checks that the directory is new or empty, or may be overwritten, and does not hold the model to start from.
    /// Nothing is written yet.
    pub(crate) fn check(path: &Path, overwrite: bool, model: &Path) -> Result<Self> {
        let shown = path.display();
        if path.exists() {
            let mut entries =
                fs::read_dir(path).with_context(|| format!("cannot use {shown} as output directory"))?;
            ensure!(
                overwrite || entries.next().is_none(),
                "the output directory {shown} is not empty: name another one as `out`, or give --overwrite"
            );
            let (out, model) = (fs::canonicalize(path)?, fs::canonicalize(model).unwrap_or_default());
            ensure!(!model.starts_with(&out), "the output directory {shown} holds the model to start from");
        }
        Ok(Self { path: path.into() })
    }

    /// Creates the directory, removes what an earlier run left there, and writes the run's settings.
    pub(crate) fn begin(&self, run: &impl Serialize) -> Result<()> {
        let settings = toml::to_string(run).context("cannot write the run's settings as TOML")?;
        let failed = || format!("cannot prepare the output directory {}", self.path.display());
        fs::create_dir_all(&self.path).with_context(failed)?;
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if is_own(&entry.file_name().to_string_lossy()) && entry.path().is_file() {
                fs::remove_file(entry.path()).with_context(failed)?;
            }
        }
        fs::write(self.path.join("run.toml"), settings).with_context(failed)
    }

    /// Where the metrics belong.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
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

fn is_own(name: &str) -> bool {
    let stem = name.split(['.', '-']).next().unwrap_or(name).trim_end_matches("_config");
    OWN_FILES.contains(&stem)
}
