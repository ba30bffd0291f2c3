//! Metrics for `TensorBoard`, under the names that transformers gives them.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use tfrecord::{
    Event, EventIter, EventMeta, EventWriter, EventWriterConfig, Summary,
    protobuf::{
        event::What,
        summary::{Value, value},
    },
};

/// What a reader expects at the head of the file.
const VERSION: &str = "brain.Event:2";

/// What `TensorBoard` recognises a file of events by.
const PREFIX: &str = "events.out.tfevents.";

/// Ends the name of a file that is not whole yet.
const PART: &str = ".part";

/// A file that `tensorboard --logdir` shows.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    writer: EventWriter<BufWriter<File>>,
}

impl EventFile {
    /// Continues the events of this directory after a step, or begins them after step 0: what was written of later steps,
    /// by a run that then ended before its next checkpoint, is dropped.
    pub(crate) fn open(directory: &Path, after_step: u64) -> Result<Self> {
        let failed = || format!("cannot prepare the event files in {}", directory.display());
        fs::create_dir_all(directory).with_context(failed)?;
        let earlier = files_of(directory).with_context(failed)?;
        let kept: Vec<Event> = earlier.iter().flat_map(|path| events(path, after_step)).collect();
        let path = match earlier.first() {
            Some(first) if after_step > 0 => first.clone(),
            _ => directory.join(format!("{PREFIX}{:.0}.align", now())),
        };
        let part = path.with_added_extension(&PART[1..]);
        let mut writer = EventWriter::create(&part, EventWriterConfig { auto_flush: false })?;
        if kept.is_empty() {
            let mut head = EventMeta::new(0, now()).build_empty();
            head.what = Some(What::FileVersion(VERSION.into()));
            writer.write_event(head)?;
        }
        kept.into_iter().try_for_each(|event| writer.write_event(event))?;
        writer.flush()?;
        fs::rename(&part, &path).with_context(failed)?;
        for stale in earlier.iter().filter(|stale| **stale != path) {
            fs::remove_file(stale).with_context(failed)?;
        }
        Ok(Self { path, writer })
    }

    /// Adds what was measured at a step.
    pub(crate) fn add<'a>(
        &mut self,
        step: u64,
        metrics: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        let value = |(name, value): (&str, f64)| Value {
            tag: tag(name),
            value: Some(value::Value::SimpleValue(value as f32)),
            ..Value::default()
        };
        let summary = Summary { value: metrics.into_iter().map(value).collect() };
        let event = EventMeta::new(step as i64, now()).build_with_summary(summary);
        self.writer
            .write_event(event)
            .and_then(|()| self.writer.flush())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// `train/loss` for `loss`, `eval/loss` for `eval_loss`.
fn tag(name: &str) -> String {
    match name.strip_prefix("eval_") {
        Some(name) => format!("eval/{name}"),
        None => format!("train/{name}"),
    }
}

fn files_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && !name.ends_with(PART) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The events up to a step. A file that breaks off in the middle of an event, as that of a killed run does, ends there.
fn events(path: &Path, up_to: u64) -> Vec<Event> {
    let Ok(events) = EventIter::open(path, tfrecord::RecordReaderConfig::default()) else {
        return Vec::new();
    };
    let whole = events.map_while(Result::ok);
    whole.filter(|event| up_to > 0 && event.step.unsigned_abs() <= up_to).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps, tags and values, and that every frame's checksum is right.
    fn read(directory: &Path) -> Vec<(i64, String, f32)> {
        let files = files_of(directory).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        let events = EventIter::open(&files[0], tfrecord::RecordReaderConfig::default()).unwrap();
        let events: Vec<Event> = events.map(|event| event.unwrap()).collect();
        assert!(matches!(&events[0].what, Some(What::FileVersion(version)) if version == VERSION));
        let values = |event: Event| match event.what {
            Some(What::Summary(summary)) => {
                let value = |one: Value| match one.value {
                    Some(value::Value::SimpleValue(value)) => (event.step, one.tag, value),
                    other => panic!("{other:?}"),
                };
                summary.value.into_iter().map(value).collect()
            }
            _ => Vec::new(),
        };
        events.into_iter().flat_map(values).collect()
    }

    fn write(directory: &Path, after: u64, steps: std::ops::RangeInclusive<u64>) {
        let mut file = EventFile::open(directory, after).unwrap();
        for step in steps {
            file.add(step, [("loss", 1.0 / step as f64), ("eval_loss", 2.0)]).unwrap();
        }
    }

    #[test]
    fn names_are_those_of_transformers() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 0, 1..=2);
        let expected =
            [(1, "train/loss", 1.0), (1, "eval/loss", 2.0), (2, "train/loss", 0.5), (2, "eval/loss", 2.0)];
        assert_eq!(read(directory.path()), expected.map(|(step, tag, value)| (step, tag.to_owned(), value)));
    }

    #[test]
    fn a_resumed_run_has_every_step_once() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 0, 1..=5);
        // The run was killed while it wrote.
        let file = files_of(directory.path()).unwrap().remove(0);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
        write(directory.path(), 3, 4..=6);
        let steps: Vec<i64> = read(directory.path()).iter().map(|(step, _, _)| *step).collect();
        assert_eq!(steps, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
        write(directory.path(), 0, 1..=1);
        assert_eq!(read(directory.path()).len(), 2, "a new run begins anew");
    }
}
