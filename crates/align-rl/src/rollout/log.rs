//! The file that rollouts of a run are written to.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use align_model::train::JsonLines;

use super::RolloutRow;

/// Rollouts as lines of JSON, which grow with a run and go back with it when it is resumed.
#[derive(Debug)]
pub struct RolloutLog {
    lines: JsonLines,
}

/// A log of rollouts could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloutLogError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A line is no rollout.
    #[error("{}:{line}: not a rollout", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line; the first is 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl RolloutLog {
    /// Opens a log, which is made if need be. What is in it stays.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, RolloutLogError> {
        let lines = JsonLines::open(path).map_err(failed("open", path))?;
        Ok(Self { lines })
    }

    /// Removes the rows of later steps than `step`, a line that a killed run left half written included; everything if
    /// `step` is 0.
    ///
    /// # Errors
    /// If the file cannot be read or shortened.
    pub fn cut_after(&mut self, step: u64) -> Result<(), RolloutLogError> {
        self.lines.cut_after(step).map_err(failed("shorten", self.lines.path()))
    }

    /// Appends rows.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, rows: &[RolloutRow]) -> Result<(), RolloutLogError> {
        let values: Result<Vec<_>, _> = rows.iter().map(serde_json::to_value).collect();
        let appended = values.map_err(io::Error::from).and_then(|values| self.lines.append(values));
        appended.map_err(failed("write", self.lines.path()))
    }

    /// Sends everything to the disk.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<(), RolloutLogError> {
        self.lines.sync().map_err(failed("write", self.lines.path()))
    }
}

/// The rows of a log, one after another. A last line that a killed run left half written is passed over.
///
/// # Errors
/// If the file cannot be opened; each item, if it cannot be read or is no rollout.
pub fn read_rollouts(
    path: &Path,
) -> Result<impl Iterator<Item = Result<RolloutRow, RolloutLogError>>, RolloutLogError> {
    let mut file = BufReader::new(File::open(path).map_err(failed("open", path))?);
    let (path, mut line, mut bytes) = (path.to_path_buf(), 0, Vec::new());
    Ok(std::iter::from_fn(move || {
        loop {
            bytes.clear();
            line += 1;
            match file.read_until(b'\n', &mut bytes) {
                Err(source) => return Some(Err(failed("read", &path)(source))),
                Ok(_) if bytes.last() != Some(&b'\n') => return None,
                Ok(_) if bytes.trim_ascii().is_empty() => {}
                Ok(_) => break,
            }
        }
        let row = serde_json::from_slice(&bytes);
        Some(row.map_err(|source| RolloutLogError::Line { path: path.clone(), line, source }))
    }))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> RolloutLogError + use<'a> {
    move |source| RolloutLogError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use align_reward::rollout::Rollout;

    use super::*;

    #[test]
    fn a_log_goes_back_and_passes_over_a_broken_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollouts.jsonl");
        let row = |step, text: &str| RolloutRow::new(step, &Rollout::new("p", text));
        let mut log = RolloutLog::open(&path).unwrap();
        log.append(&[row(1, "a"), row(2, "b"), row(3, "c")]).unwrap();
        log.sync().unwrap();
        let steps =
            |path: &Path| -> Vec<u64> { read_rollouts(path).unwrap().map(|row| row.unwrap().step).collect() };
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        assert_eq!(steps(&path), [1, 2]);
        let mut log = RolloutLog::open(&path).unwrap();
        log.cut_after(1).unwrap();
        log.append(&[row(2, "d")]).unwrap();
        assert_eq!(steps(&path), [1, 2]);
        std::fs::write(&path, b"{\"step\":1}\n").unwrap();
        let error = read_rollouts(&path).unwrap().next().unwrap().unwrap_err();
        assert!(matches!(error, RolloutLogError::Line { line: 1, .. }), "{error}");
        assert!(read_rollouts(&directory.path().join("none")).is_err());
    }
}
