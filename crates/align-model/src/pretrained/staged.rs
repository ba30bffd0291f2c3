//! Files that replace others together, or not at all.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::LoadError;

/// Files written beside their places, under names that end in `.part`, until [`commit`](Self::commit) moves them there.
/// What has not been moved is deleted: a full disk leaves the old files as they were.
#[derive(Debug)]
pub(crate) struct StagedFiles<'a> {
    directory: &'a Path,
    names: Vec<String>,
}

impl<'a> StagedFiles<'a> {
    pub(crate) fn new(directory: &'a Path) -> Self {
        Self { directory, names: Vec::new() }
    }

    /// Lets `write` fill the file that will be called `name`. It is given the path to write to.
    pub(crate) fn stage(
        &mut self,
        name: &str,
        write: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<(), LoadError> {
        self.names.push(name.to_string());
        let part = self.part(name);
        // A rename may reach the disk before the data does, unless the data is sent there first.
        let written = write(&part).and_then(|()| File::options().write(true).open(&part)?.sync_all());
        written.map_err(|source| LoadError::Io { action: "write", path: self.directory.join(name), source })
    }

    pub(crate) fn stage_json(&mut self, name: &str, value: &Value) -> Result<(), LoadError> {
        self.stage(name, |part| fs::write(part, format!("{value:#}\n")))
    }

    /// Moves every file to its place, in the order in which they were staged.
    pub(crate) fn commit(mut self) -> Result<(), LoadError> {
        let names = std::mem::take(&mut self.names);
        for (index, name) in names.iter().enumerate() {
            let path = self.directory.join(name);
            if let Err(source) = fs::rename(self.part(name), &path) {
                self.names = names[index..].to_vec();
                return Err(LoadError::Io { action: "replace", path, source });
            }
        }
        Ok(())
    }

    fn part(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.part"))
    }
}

impl Drop for StagedFiles<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            // Best effort: the error that led here is the one worth reporting.
            let _ = fs::remove_file(self.part(name));
        }
    }
}
