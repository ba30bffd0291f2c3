//! What a run is made of, so that a checkpoint is not continued with something else.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The SHA-256 of something, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut builder = FingerprintBuilder::new();
        builder.update(bytes);
        builder.finish()
    }

    /// Of a file's contents.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let (mut file, mut builder) = (File::open(path)?, FingerprintBuilder::new());
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(builder.finish()),
                read => builder.update(&piece[..read]),
            }
        }
    }

    /// Of anything that can be written as JSON: samples, settings.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn of_json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        let mut builder = FingerprintBuilder::new();
        serde_json::to_writer(Sink(&mut builder), value)?;
        Ok(builder.finish())
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fingerprint of something that is read piece by piece.
#[derive(Debug, Clone, Default)]
pub struct FingerprintBuilder(Sha256);

impl FingerprintBuilder {
    /// Of nothing so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece. How the whole is cut does not matter.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The fingerprint of everything that was added.
    #[must_use]
    pub fn finish(self) -> Fingerprint {
        let digits = self.0.finalize().into_iter().map(|byte| format!("{byte:02x}"));
        Fingerprint(digits.collect())
    }
}

struct Sink<'a>(&'a mut FingerprintBuilder);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What decides every bit of a run. A checkpoint is continued only by a run with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    /// The resolved settings. What cannot change a bit of the result, such as the output directory, is left out.
    pub config: Value,
    /// The samples, in their order.
    pub data: Fingerprint,
    /// The model that the run starts from.
    pub model: Fingerprint,
}

impl RunIdentity {
    /// What a run with these settings, samples and model is.
    #[must_use]
    pub fn new(config: Value, data: Fingerprint, model: Fingerprint) -> Self {
        Self { config, data, model }
    }

    /// Without the settings under these dotted keys, which may change when a run is resumed.
    #[must_use]
    pub fn ignoring(mut self, keys: &[&str]) -> Self {
        for key in keys {
            let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
            let table = parents
                .split('.')
                .filter(|part| !part.is_empty())
                .try_fold(&mut self.config, |table, part| table.get_mut(part));
            if let Some(Value::Object(table)) = table {
                table.shift_remove(last);
            }
        }
        self
    }

    /// What this run has that `saved` has not or has otherwise; nothing if they are the same.
    #[must_use]
    pub fn differences(&self, saved: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        compare("", Some(&saved.config), Some(&self.config), &mut differences);
        for (what, saved, now) in [("data", &saved.data, &self.data), ("model", &saved.model, &self.model)] {
            if saved != now {
                differences.push(Difference {
                    what: format!("the {what}"),
                    saved: saved.as_str()[..8.min(saved.as_str().len())].into(),
                    now: now.as_str()[..8.min(now.as_str().len())].into(),
                });
            }
        }
        differences
    }
}

/// One thing in which a checkpoint's run and the present one differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// A dotted key of the settings, `the data` or `the model`.
    pub what: String,
    /// Its value in the checkpoint; of data and models the beginning of the fingerprint.
    pub saved: String,
    /// Its value now.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {} and is {}", self.what, self.saved, self.now)
    }
}

impl Difference {
    pub(super) fn list(differences: &[Self]) -> String {
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn compare(path: &str, saved: Option<&Value>, now: Option<&Value>, found: &mut Vec<Difference>) {
    if saved == now {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (saved, now) {
        let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
        for key in keys {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&below, before.get(key), after.get(key), found);
        }
        return;
    }
    let shown = |value: Option<&Value>| value.map_or("not set".to_owned(), ToString::to_string);
    let what = if path.is_empty() { "the configuration" } else { path };
    found.push(Difference { what: what.into(), saved: shown(saved), now: shown(now) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn identity(config: Value) -> RunIdentity {
        RunIdentity::new(config, Fingerprint::of_bytes(b"data"), Fingerprint::of_bytes(b"model"))
    }

    #[test]
    fn a_fingerprint_is_the_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Fingerprint::of_bytes(b"abc").as_str(), expected);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        assert_eq!(Fingerprint::of_file(file.path()).unwrap().as_str(), expected);
        assert_eq!(Fingerprint::of_json(&[1, 2]).unwrap(), Fingerprint::of_bytes(b"[1,2]"));
    }

    #[test]
    fn differences_are_named_by_their_keys() {
        let saved = identity(json!({ "sft": { "seed": 1, "lr": 0.5 }, "device": "flex" }));
        let mut now =
            identity(json!({ "sft": { "seed": 2, "lr": 0.5 }, "ema": { "decay": 0.9 }, "device": "flex" }));
        now.data = Fingerprint::of_bytes(b"other");
        let said: Vec<String> = now.differences(&saved).iter().map(ToString::to_string).collect();
        assert_eq!(said[..2], ["sft.seed was 1 and is 2", "ema was not set and is {\"decay\":0.9}"]);
        assert!(said[2].starts_with("the data was "), "{said:?}");
        assert!(saved.differences(&saved).is_empty());
    }

    #[test]
    fn what_is_ignored_may_differ() {
        let run = |out: &str, keep: u64| {
            identity(json!({ "out": out, "checkpoints": { "keep_last": keep, "every": 5 } })).ignoring(&[
                "out",
                "checkpoints.keep_last",
                "nowhere.at_all",
            ])
        };
        assert!(run("a", 1).differences(&run("b", 2)).is_empty());
        assert_eq!(run("a", 1).config, json!({ "checkpoints": { "every": 5 } }));
    }
}
