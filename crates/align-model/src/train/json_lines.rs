//! Files with an object a line, each with the `step` that it belongs to.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

/// A file of JSON objects, one a line, that grows and can go back to an earlier step: each object has a number `step`.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

#[derive(Deserialize)]
struct StepOfLine {
    step: u64,
}

impl JsonLines {
    /// Opens a file, which is made if need be. What is in it stays.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        Ok(Self { path: path.into(), file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what follows the lines of `step`, a line that a killed run left half written included; everything if
    /// `step` is 0.
    ///
    /// # Errors
    /// If the file cannot be read or shortened.
    pub fn cut_after(&mut self, step: u64) -> io::Result<()> {
        let mut kept = 0;
        if step > 0 {
            let mut lines = BufReader::new(File::open(&self.path)?);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line)? > 0 {
                let of_line = serde_json::from_slice::<StepOfLine>(&line).map(|line| line.step);
                if line.last() != Some(&b'\n') || of_line.is_ok_and(|of_line| of_line > step) {
                    break;
                }
                kept += line.len() as u64;
                line.clear();
            }
        }
        self.file.set_len(kept)
    }

    /// Appends lines. They are written at once: a run that dies leaves those of every step it made.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, rows: impl IntoIterator<Item = Value>) -> io::Result<()> {
        let lines = rows.into_iter().map(|row| format!("{row}\n"));
        self.file.write_all(lines.collect::<String>().as_bytes())
    }

    /// Sends everything to the disk.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after_cut(text: &str, step: u64) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut lines = JsonLines::open(file.path()).unwrap();
        lines.cut_after(step).unwrap();
        lines.append([json!({ "step": 9 })]).unwrap();
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn lines_after_the_step_go_and_new_ones_follow() {
        let text = "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"step\":2}\n{\"step\":3}\n{\"st";
        assert_eq!(
            after_cut(text, 2),
            "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"step\":2}\n{\"step\":9}\n"
        );
        let whole = text.strip_suffix("{\"st").unwrap();
        assert_eq!(after_cut(text, 7), format!("{whole}{{\"step\":9}}\n"));
        assert_eq!(after_cut(text, 0), "{\"step\":9}\n");
    }
}
