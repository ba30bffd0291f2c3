//! The loop around steps: hooks, checkpoints, resuming, stopping.

mod readable;

use std::{borrow::Borrow, error::Error, fmt};

use readable::Readable;

use super::{Failure, FitError, Flow, Hook, Metrics, Progress, Report, Step, StepEvent, StopSignal};
use crate::checkpoint::{
    CheckpointError, CheckpointPlace, CheckpointStore, Difference, Manifest, OnSaveFailure, Resumable, State,
    StateError,
};

/// A run of so many steps.
///
/// Batches come from an iterator that is a pure function of data, settings and seed: a resumed run is given the same one
/// from its beginning and skips what was taken.
///
/// After each step the hooks are called in their order, then a checkpoint is made if one is due, then the stop signal is
/// looked at. Exactly as many batches are taken as steps are made, so that whoever makes them may note in a hook's state
/// how far it has come. The last step, a hook's [`Flow::Stop`] and the stop signal make a checkpoint in any case.
pub struct TrainingLoop<'a, S, I> {
    total_steps: u64,
    start: Start,
    stop: StopSignal,
    describe: Option<Describe<'a, I>>,
    checkpoints: Option<Checkpoints<'a, S>>,
}

/// Says what a batch is made of.
type Describe<'a, I> = Box<dyn Fn(&I) -> String + 'a>;

#[derive(Debug, Clone, Copy, Default)]
struct Start {
    step: u64,
    batches_taken: u64,
    finished: bool,
}

/// Where checkpoints go and how a trainer gets into one.
struct Checkpoints<'a, S> {
    store: &'a mut CheckpointStore,
    save: fn(&S, &mut State) -> Result<(), StateError>,
    last: Option<u64>,
    failed: u64,
}

/// Where a run goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Steps made before; 0 if there was no checkpoint.
    pub step: u64,
    /// Whether nothing is left to do.
    pub finished: bool,
    /// Newer checkpoints that are damaged, with what is wrong with them, for people.
    pub passed_over: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Steps made in all, those before resuming included.
    pub step: u64,
    /// Why there are no more.
    pub ending: Ending,
    /// Checkpoints that could not be made.
    pub failed_checkpoints: u64,
}

/// Why a run has no more steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All were made.
    Completed,
    /// The batches ended before.
    OutOfBatches,
    /// A hook ended it, such as early stopping.
    StoppedByHook,
    /// It was over before it was resumed: no step was made.
    FinishedBefore,
    /// The stop signal was given; the run can be resumed.
    StopRequested,
}

impl<'a, S, I> TrainingLoop<'a, S, I> {
    /// A run from its beginning, without checkpoints.
    #[must_use]
    pub fn new(total_steps: u64) -> Self {
        let (start, stop) = (Start::default(), StopSignal::new());
        Self { total_steps, start, stop, describe: None, checkpoints: None }
    }

    /// Ends after the step in which this signal is given.
    #[must_use]
    pub fn stopping_at(mut self, signal: StopSignal) -> Self {
        self.stop = signal;
        self
    }

    /// Says in the error of a failed step what its batch was made of, such as the places of its samples.
    #[must_use]
    pub fn describing(mut self, describe: impl Fn(&I) -> String + 'a) -> Self {
        self.describe = Some(Box::new(describe));
        self
    }

    /// Makes checkpoints as the store's settings say.
    #[must_use]
    pub fn with_checkpoints(mut self, store: &'a mut CheckpointStore) -> Self
    where
        S: Resumable,
    {
        self.checkpoints = Some(Checkpoints { store, save: S::save, last: None, failed: 0 });
        self
    }

    /// Restores trainer and hooks from the newest intact checkpoint, if there is one; [`run`](Self::run) goes on there.
    /// `hooks` are the same, in the same order, as those given to `run`.
    ///
    /// # Errors
    /// If there are checkpoints but none is intact, the newest belongs to another run, or does not fit.
    ///
    /// # Panics
    /// If the loop was not told [where checkpoints are](Self::with_checkpoints).
    pub fn resume<R>(
        &mut self,
        trainer: &mut S,
        hooks: &mut [&mut dyn Hook<S, R>],
    ) -> Result<Resumed, CheckpointError>
    where
        S: Resumable,
    {
        let nothing = Resumed { step: 0, finished: false, passed_over: Vec::new() };
        assert!(self.checkpoints.is_some(), "a run is resumed from its checkpoints");
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(nothing) };
        let Some(newest) = checkpoints.store.newest()? else { return Ok(nothing) };
        let (path, manifest) = (newest.path, newest.manifest);
        let passed_over = newest.passed_over.iter().map(ToString::to_string).collect();
        if manifest.total_steps != self.total_steps {
            let (saved, now) = (manifest.total_steps.to_string(), self.total_steps.to_string());
            let differences = vec![Difference { what: "the number of steps".into(), saved, now }];
            return Err(CheckpointError::OtherRun { path, differences });
        }
        let mut state = checkpoints.store.read_state(manifest.step)?;
        restore(&mut state, trainer, hooks)
            .and_then(|()| state.finish())
            .map_err(|source| CheckpointError::State { path, source: Box::new(source) })?;
        checkpoints.last = Some(manifest.step);
        let (step, batches_taken, finished) = (manifest.step, manifest.batches_taken, manifest.finished);
        self.start = Start { step, batches_taken, finished };
        Ok(Resumed { step, finished, passed_over })
    }

    /// Makes the steps that are left.
    ///
    /// # Errors
    /// If a step, a hook or a checkpoint fails. Checkpoints made before stand.
    pub fn run<B: ?Sized>(
        self,
        trainer: &mut S,
        batches: impl IntoIterator<Item = I>,
        hooks: &mut [&mut dyn Hook<S, S::Report>],
    ) -> Result<Outcome, FitError<S::Error>>
    where
        S: Step<B>,
        I: Borrow<B>,
    {
        self.try_run(trainer, Readable(batches.into_iter()), hooks)
    }

    /// As [`run`](Self::run), with batches that may turn out to be unreadable, as those of a stream of files.
    ///
    /// # Errors
    /// If a batch cannot be read, or a step, a hook or a checkpoint fails. Checkpoints made before stand.
    pub fn try_run<B: ?Sized, E>(
        mut self,
        trainer: &mut S,
        batches: impl IntoIterator<Item = Result<I, E>>,
        hooks: &mut [&mut dyn Hook<S, S::Report>],
    ) -> Result<Outcome, FitError<S::Error, E>>
    where
        S: Step<B>,
        I: Borrow<B>,
        E: Error + 'static,
    {
        let result = self.steps(trainer, batches.into_iter(), hooks);
        if let Err(error) = &result {
            let step = error.step();
            let reason = with_sources(error);
            for hook in hooks {
                hook.on_failure(&Failure { step, reason: &reason }, trainer);
            }
        }
        result
    }

    fn steps<B: ?Sized, E>(
        &mut self,
        trainer: &mut S,
        mut batches: impl Iterator<Item = Result<I, E>>,
        hooks: &mut [&mut dyn Hook<S, S::Report>],
    ) -> Result<Outcome, FitError<S::Error, E>>
    where
        S: Step<B>,
        I: Borrow<B>,
        E: Error + 'static,
    {
        let (mut step, total_steps) = (self.start.step, self.total_steps);
        let mut metrics = Metrics::new();
        for hook in hooks.iter_mut() {
            let begun = hook.begin(Progress { step, total_steps }, &mut metrics, trainer);
            begun.map_err(|source| FitError::Hook { step, source })?;
        }
        let mut ending = (self.start.finished || step >= total_steps).then_some(Ending::FinishedBefore);
        if let (None, Some(last)) = (ending, self.start.batches_taken.checked_sub(1)) {
            // `nth` counts from 0.
            let taken = batches.nth(last as usize).transpose();
            let taken = taken.map_err(|source| self.unreadable(step, source))?;
            ending = taken.is_none().then_some(Ending::OutOfBatches);
        }
        let ending = loop {
            if let Some(ending) = ending {
                break ending;
            }
            let batch = batches.next().transpose().map_err(|source| self.unreadable(step + 1, source))?;
            let Some(batch) = batch else { break Ending::OutOfBatches };
            let progress = Progress { step: step + 1, total_steps };
            let flow = self.one_step(progress, trainer, &batch, &mut metrics, hooks)?;
            step += 1;
            if flow == Flow::Stop {
                ending = Some(Ending::StoppedByHook);
            } else if step >= total_steps {
                ending = Some(Ending::Completed);
            } else if self.stop.is_requested() {
                ending = Some(Ending::StopRequested);
            } else if self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.due(step)) {
                self.checkpoint(progress, None, &metrics, trainer, hooks)?;
            }
        };
        self.checkpoint(Progress { step, total_steps }, Some(ending), &metrics, trainer, hooks)?;
        let failed_checkpoints = self.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.failed);
        let outcome = Outcome { step, ending, failed_checkpoints };
        for hook in hooks.iter_mut() {
            hook.at_end(&outcome, trainer).map_err(|source| FitError::Hook { step, source })?;
        }
        Ok(outcome)
    }

    /// The batch of a step cannot be read.
    fn unreadable<F: Error + 'static, E: Error + 'static>(&self, step: u64, source: E) -> FitError<F, E> {
        FitError::Batch { step, last_checkpoint: self.last_checkpoint(), source }
    }

    fn last_checkpoint(&self) -> Option<u64> {
        self.checkpoints.as_ref().and_then(|checkpoints| checkpoints.last)
    }

    /// Makes one step between its hooks and leaves its metrics.
    fn one_step<B: ?Sized, E: Error + 'static>(
        &self,
        progress: Progress,
        trainer: &mut S,
        batch: &I,
        metrics: &mut Metrics,
        hooks: &mut [&mut dyn Hook<S, S::Report>],
    ) -> Result<Flow, FitError<S::Error, E>>
    where
        S: Step<B>,
        I: Borrow<B>,
    {
        for hook in hooks.iter_mut() {
            let ready = hook.before_step(progress, trainer);
            ready.map_err(|source| FitError::Hook { step: progress.step - 1, source })?;
        }
        let report = trainer.step(batch.borrow()).map_err(|source| FitError::Step {
            step: progress.step,
            batch: self.describe.as_ref().map(|describe| describe(batch)),
            last_checkpoint: self.last_checkpoint(),
            source,
        })?;
        *metrics = report.metrics().into_iter().collect();
        metrics.extend(report.named_metrics());
        let mut event = StepEvent { progress, report: &report, metrics };
        let mut flow = Flow::Continue;
        for hook in hooks.iter_mut() {
            let asked = hook.after_step(&mut event, trainer);
            if asked.map_err(|source| FitError::Hook { step: progress.step, source })? == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        Ok(flow)
    }

    /// Makes a checkpoint, unless there is one of this step, and tells the hooks.
    fn checkpoint<R, F: Error + 'static, E: Error + 'static>(
        &mut self,
        Progress { step, total_steps }: Progress,
        ending: Option<Ending>,
        metrics: &Metrics,
        trainer: &S,
        hooks: &mut [&mut dyn Hook<S, R>],
    ) -> Result<(), FitError<F, E>> {
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        if step == 0 || checkpoints.last == Some(step) {
            return Ok(());
        }
        let place = CheckpointPlace {
            step,
            total_steps,
            batches_taken: step,
            finished: ending.is_some_and(|ending| ending != Ending::StopRequested),
            metrics: metrics.iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        for hook in hooks.iter_mut() {
            hook.before_checkpoint().map_err(|source| FitError::Hook { step, source })?;
        }
        let made = checkpoints.make(place, trainer, hooks);
        for hook in hooks.iter_mut() {
            hook.after_checkpoint(made.as_ref());
        }
        let may_fail = ending.is_none() && checkpoints.store.config().on_failure == OnSaveFailure::Continue;
        let source = match made {
            Ok(_) => match checkpoints.missing_metric(step, metrics) {
                None => return Ok(()),
                Some(error) => error,
            },
            Err(_) if may_fail => {
                checkpoints.failed += 1;
                return Ok(());
            }
            Err(error) => error,
        };
        Err(FitError::Checkpoint { step, last_checkpoint: checkpoints.last, source: Box::new(source) })
    }
}

impl<S> Checkpoints<'_, S> {
    fn due(&self, step: u64) -> bool {
        step.is_multiple_of(self.store.config().every.get())
    }

    fn make<R>(
        &mut self,
        place: CheckpointPlace,
        trainer: &S,
        hooks: &[&mut dyn Hook<S, R>],
    ) -> Result<Manifest, CheckpointError> {
        let step = place.step;
        let collected = collect(trainer, self.save, hooks)
            .map_err(Box::new)
            .map_err(|source| CheckpointError::State { path: self.store.path(step), source })?;
        let manifest = self.store.save(place, &collected)?.clone();
        self.last = Some(step);
        Ok(manifest)
    }

    /// A checkpoint that is due has the metric by which the best is chosen; one that a signal asked for need not.
    fn missing_metric(&self, step: u64, metrics: &Metrics) -> Option<CheckpointError> {
        let metric = &self.store.config().keep_best.as_ref()?.metric;
        (self.due(step) && metrics.get(metric).is_none())
            .then(|| CheckpointError::NoSuchMetric { metric: metric.clone(), known: metrics.names() })
    }
}

const TRAINER: &str = "trainer";

fn hook_name<S, R>(hook: &dyn Hook<S, R>) -> String {
    format!("hooks/{}", hook.name())
}

fn collect<S, R>(
    trainer: &S,
    save: fn(&S, &mut State) -> Result<(), StateError>,
    hooks: &[&mut dyn Hook<S, R>],
) -> Result<State, StateError> {
    let (mut all, mut state) = (State::new(), State::new());
    save(trainer, &mut state)?;
    all.insert_state(TRAINER, state);
    for hook in hooks {
        let mut state = State::new();
        hook.save(&mut state)?;
        all.insert_state(&hook_name(&**hook), state);
    }
    Ok(all)
}

fn restore<S: Resumable, R>(
    all: &mut State,
    trainer: &mut S,
    hooks: &mut [&mut dyn Hook<S, R>],
) -> Result<(), StateError> {
    let mut state = all.take_state(TRAINER);
    trainer.restore(&mut state)?;
    state.finish()?;
    for hook in hooks {
        let mut state = all.take_state(&hook_name(&**hook));
        if !state.is_empty() {
            hook.restore(&mut state)?;
        }
        state.finish()?;
    }
    Ok(())
}

/// An error and what it was because of.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

impl<S, I> fmt::Debug for TrainingLoop<'_, S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingLoop")
            .field("total_steps", &self.total_steps)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
