//! What was measured since a run began, however often it was interrupted.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::files;

/// Every measurement of a run, by its name, in the order in which the names appeared.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct History {
    series: Vec<(String, Vec<(u64, f64)>)>,
}

impl History {
    /// The measurements up to a step that a file of metrics holds. Without the file there are none.
    pub(crate) fn read(metrics: &Path, up_to: u64) -> Self {
        let mut history = Self::default();
        let text = fs::read_to_string(metrics).unwrap_or_default();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok()) {
            let Some(step) = line.get("step").and_then(Value::as_u64).filter(|step| *step <= up_to) else {
                continue;
            };
            let measured = line.iter().filter(|(name, _)| *name != "step");
            history.add(step, measured.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?))));
        }
        history
    }

    /// Adds what was measured at a step.
    pub(crate) fn add<'a>(&mut self, step: u64, metrics: impl IntoIterator<Item = (&'a str, f64)>) {
        for (name, value) in metrics {
            match self.series.iter_mut().find(|(own, _)| own == name) {
                Some((_, points)) => points.push((step, value)),
                None => self.series.push((name.to_owned(), vec![(step, value)])),
            }
        }
    }

    /// The names, in the order in which they appeared.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.series.iter().map(|(name, _)| name.as_str())
    }

    /// Steps and values of a measurement.
    pub(crate) fn points(&self, name: &str) -> &[(u64, f64)] {
        self.series.iter().find(|(own, _)| own == name).map_or(&[], |(_, points)| points)
    }

    /// The latest value of a measurement.
    pub(crate) fn last(&self, name: &str) -> Option<f64> {
        self.points(name).last().map(|(_, value)| *value)
    }
}

/// The time that a step took its run to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// The step.
    pub(crate) step: u64,
    /// Seconds that the run had been training, without those between an interruption and its continuation.
    pub(crate) seconds: f64,
    /// Tokens a second in this step.
    pub(crate) tokens_per_second: f64,
}

/// A file of [`Moment`]s: apart from the metrics, which are the same for every repetition of a run.
#[derive(Debug)]
pub(crate) struct Timeline {
    file: File,
    moments: Vec<Moment>,
}

impl Timeline {
    /// Continues a file after a step; after step 0 it begins anew.
    pub(crate) fn open(path: &Path, after_step: u64) -> Result<Self> {
        let text = if after_step > 0 { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let moments = text.lines().map_while(|line| serde_json::from_str::<Moment>(line).ok());
        let moments: Vec<Moment> = moments.take_while(|moment| moment.step <= after_step).collect();
        let lines: Vec<String> = moments.iter().map(line).collect::<Result<_>>()?;
        files::write(path, &lines.concat())?;
        let file = File::options().append(true).open(path);
        Ok(Self { file: file.with_context(|| format!("cannot continue {}", path.display()))?, moments })
    }

    /// Seconds that the run has been training.
    pub(crate) fn seconds(&self) -> f64 {
        self.moments.last().map_or(0.0, |moment| moment.seconds)
    }

    /// All moments.
    pub(crate) fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// Adds a moment.
    pub(crate) fn add(&mut self, moment: Moment) -> Result<()> {
        self.moments.push(moment);
        self.file.write_all(line(&moment)?.as_bytes()).context("cannot write the times of the steps")
    }
}

fn line(moment: &Moment) -> Result<String> {
    Ok(serde_json::to_string(moment)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_ends_where_the_run_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        fs::write(
            &path,
            "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"loss\":1.5,\"eval_loss\":3}\n{\"step\":3,\"lo",
        )
        .unwrap();
        let history = History::read(&path, 2);
        assert_eq!(history.points("loss"), [(1, 2.0), (2, 1.5)]);
        assert_eq!(history.names().collect::<Vec<_>>(), ["loss", "eval_loss"]);
        assert_eq!(History::read(&path, 1).last("loss"), Some(2.0));
        assert_eq!(History::read(&directory.path().join("none"), 9), History::default());
    }

    #[test]
    fn a_timeline_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("timing.jsonl");
        let moment = |step: u64| Moment { step, seconds: step as f64 / 2.0, tokens_per_second: 100.0 };
        let mut timeline = Timeline::open(&path, 0).unwrap();
        (1..=4).try_for_each(|step| timeline.add(moment(step))).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"step\":5,").unwrap();
        let timeline = Timeline::open(&path, 3).unwrap();
        assert_eq!(timeline.moments(), [moment(1), moment(2), moment(3)]);
        assert!((timeline.seconds() - 1.5).abs() < 1e-12);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
        assert!(Timeline::open(&path, 0).unwrap().moments().is_empty());
    }
}
