//! Files that appear whole or not at all.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Writes a file beside its place and renames it: a reader sees the old file or the whole new one.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_added_extension("part");
    fs::write(&part, text).with_context(|| format!("cannot write {}", part.display()))?;
    rename(&part, path)
}

/// Puts a finished file in its place.
pub(crate) fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}
