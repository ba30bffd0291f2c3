//! The hook that keeps everything that people look at: progress, event files, times and the report.

use std::{
    cell::Cell,
    fs,
    rc::Rc,
    time::{Duration, Instant},
};

use align_model::train::{Ending, Failure, Flow, Hook, HookError, Metrics, Outcome, Progress, StepEvent};
use anyhow::Result;

use super::{
    directory::RunDirectory,
    event_file::EventFile,
    history::{History, Moment, Timeline},
    machine::{self, Machine},
    progress::ProgressDisplay,
    report::{KeptCheckpoint, Portrait, Report, Sample, Standing},
    rollouts::Alarms,
};

/// Takes the time of each step. It stands before all other hooks, so that theirs does not count.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    began: Instant,
    took: Rc<Cell<Duration>>,
}

impl<S, R> Hook<S, R> for Stopwatch {
    fn after_step(&mut self, _event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        self.took.set(self.began.elapsed());
        Ok(Flow::Continue)
    }

    fn before_step(&mut self, _progress: Progress, _trainer: &S) -> Result<(), HookError> {
        self.began = Instant::now();
        Ok(())
    }
}

/// Shows a run while it lasts and keeps its report current. It stands behind all hooks that measure.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    directory: &'a RunDirectory,
    portrait: Portrait,
    machine: Machine,
    display: ProgressDisplay,
    records: Option<Records>,
    standing: Standing,
    /// The time of the last step.
    took: Rc<Cell<Duration>>,
    alarms: Alarms,
}

/// What a run leaves besides its metrics.
#[derive(Debug)]
struct Records {
    events: EventFile,
    timeline: Timeline,
    history: History,
    /// Seconds before this program continued the run.
    seconds_before: f64,
    started: Instant,
    /// Time of all steps since then.
    in_steps: Duration,
}

impl<'a> Watch<'a> {
    /// Shows a run that is about to begin or to go on; besides, what takes the times of its steps.
    pub(crate) fn new(directory: &'a RunDirectory, portrait: Portrait, alarms: Alarms) -> (Stopwatch, Self) {
        let (display, took) = (ProgressDisplay::start(portrait.total_steps), Rc::default());
        let stopwatch = Stopwatch { began: Instant::now(), took: Rc::clone(&took) };
        let (machine, standing) = (Machine::look(), Standing::Running);
        (stopwatch, Self { directory, portrait, machine, display, records: None, standing, took, alarms })
    }

    /// Writes the report as things stand.
    fn report(&self) -> Result<()> {
        let Some(records) = &self.records else { return Ok(()) };
        let report = Report {
            portrait: &self.portrait,
            machine: &self.machine,
            standing: &self.standing,
            history: &records.history,
            moments: records.timeline.moments(),
            samples: &self.samples(),
            checkpoints: &self.checkpoints(&records.history),
        };
        report.write(&self.directory.report())
    }

    fn samples(&self) -> Vec<Sample> {
        let text = fs::read_to_string(self.directory.samples()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn checkpoints(&self, history: &History) -> Vec<KeptCheckpoint> {
        let measured = |name: &str, step: u64| {
            let value = history.points(name).iter().find(|(own, _)| *own == step)?.1;
            Some(format!("{} {value:.4}", name.replace('_', " ")))
        };
        let described = |name: String| {
            let step = name.rsplit('-').next()?.parse().ok()?;
            let notes = ["loss", "eval_loss"].into_iter().filter_map(|name| measured(name, step));
            let note = notes.collect::<Vec<_>>().join(", ");
            let files = fs::read_dir(self.directory.path().join(&name)).ok()?.filter_map(Result::ok);
            let size = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
            Some(KeptCheckpoint { name, step, size: machine::bytes(size), note })
        };
        self.directory.checkpoints().into_iter().filter_map(described).collect()
    }

    fn begin_at(&mut self, progress: Progress, metrics: &Metrics) -> Result<()> {
        let step = progress.step;
        let mut history = History::read(&self.directory.metrics(), step);
        let mut events = EventFile::open(&self.directory.events(), step)?;
        let timeline = Timeline::open(&self.directory.timing(), step)?;
        if step == 0 && !metrics.is_empty() {
            history.add(0, metrics.iter());
            events.add(0, metrics.iter())?;
        }
        self.display.resume(step, history.last("num_tokens").unwrap_or(0.0));
        let (seconds_before, started) = (timeline.seconds(), Instant::now());
        self.records =
            Some(Records { events, timeline, history, seconds_before, started, in_steps: Duration::ZERO });
        self.report()
    }

    fn add(&mut self, progress: Progress, metrics: &Metrics) -> Result<()> {
        let Some(records) = &mut self.records else { return Ok(()) };
        let step = progress.step;
        let tokens = metrics.get("num_tokens").unwrap_or(0.0);
        let new_tokens = tokens - records.history.last("num_tokens").unwrap_or(0.0);
        records.in_steps += self.took.get();
        let tokens_per_second = new_tokens / self.took.get().as_secs_f64();
        let seconds = records.seconds_before + records.started.elapsed().as_secs_f64();
        records.timeline.add(Moment { step, seconds, tokens_per_second })?;
        records.history.add(step, metrics.iter());
        records.events.add(step, metrics.iter().chain([("tokens_per_second", tokens_per_second)]))?;
        self.display.show(progress, metrics, records.in_steps);
        for alarm in self.alarms.take() {
            self.display.say(&format!("alarm: {alarm}"));
            self.portrait.warnings.push(alarm);
        }
        if metrics.iter().any(|(name, _)| name.starts_with("eval_")) { self.report() } else { Ok(()) }
    }

    fn end(&mut self, standing: Standing) -> Result<()> {
        self.standing = standing;
        self.report()
    }
}

/// Why a hook ended a run.
pub(crate) fn why_stopped(alarms: &Alarms) -> String {
    alarms.end().unwrap_or_else(|| "it no longer got better".into())
}

fn failed(error: anyhow::Error) -> HookError {
    HookError { hook: "report", reason: format!("{error:#}") }
}

impl<S, R> Hook<S, R> for Watch<'_> {
    fn begin(&mut self, progress: Progress, metrics: &mut Metrics, _trainer: &S) -> Result<(), HookError> {
        self.begin_at(progress, metrics).map_err(failed)
    }

    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _trainer: &S) -> Result<Flow, HookError> {
        self.add(event.progress, event.metrics).map_err(failed)?;
        Ok(Flow::Continue)
    }

    fn after_checkpoint(
        &mut self,
        made: Result<&align_model::checkpoint::Manifest, &align_model::checkpoint::CheckpointError>,
    ) {
        if let Err(error) = made {
            let because =
                std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
            self.display.say(&format!("no checkpoint was made: {error}{because}"));
            self.portrait.warnings.push(format!("a checkpoint could not be made: {error}{because}"));
        }
        // The next report is written in any case; this one only keeps the list of checkpoints fresh.
        let _ = self.report();
    }

    fn at_end(&mut self, outcome: &Outcome, _trainer: &S) -> Result<(), HookError> {
        let standing = match outcome.ending {
            Ending::Completed | Ending::FinishedBefore => Standing::Finished,
            Ending::OutOfBatches => Standing::Stopped("there is no more data".into()),
            Ending::StoppedByHook => Standing::Stopped(why_stopped(&self.alarms)),
            Ending::StopRequested => Standing::Stopped("it was asked to; --resume goes on".into()),
        };
        self.end(standing).map_err(failed)
    }

    fn on_failure(&mut self, failure: &Failure<'_>, _trainer: &S) {
        // Whatever failed is what the user has to hear of, not that the report could not say so.
        let _ = self.end(Standing::Failed(failure.reason.to_owned()));
    }
}
