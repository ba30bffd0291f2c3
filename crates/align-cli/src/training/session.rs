//! A training run of any method, from its first step or a checkpoint to its end.

use std::{borrow::Borrow, error::Error};

use align_model::{
    checkpoint::{CheckpointConfig, CheckpointStore, Resumable, RunIdentity},
    train::{
        EarlyStopping, EarlyStoppingConfig, Ending, Evaluation, EvaluationConfig, GeneratedSample, Hook,
        HookError, JsonlRecorder, Outcome, Recording, Resumed, SamplesConfig, SamplesDuringTraining, Step,
        TrainingLoop,
    },
};
use align_rl::watch::{GoldEvaluation, GoldWatch};
use anyhow::{Context as _, Result};

use crate::{method::Measured, run_file::rewards::GoldTable};

use super::{
    directory::RunDirectory,
    interrupt::{self, Interrupted},
    report::Portrait,
    rollouts::{Alarms, ReadNews, RolloutsDuringTraining},
    watch::{Watch, why_stopped},
};

/// A run that is about to begin or to go on.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// Where everything is written.
    pub(crate) directory: &'a RunDirectory,
    /// What decides every bit of it.
    pub(crate) identity: RunIdentity,
    /// When checkpoints are made.
    pub(crate) checkpoints: &'a CheckpointConfig,
    /// When it ends early.
    pub(crate) early_stopping: Option<&'a EarlyStoppingConfig>,
    /// What its report tells.
    pub(crate) portrait: Portrait,
}

/// Measures a trainer's model.
pub(crate) type Evaluate<'a, S> = Box<dyn FnMut(&S) -> Result<Measured, HookError> + 'a>;

/// Lets a trainer's model write.
pub(crate) type Write<'a, S> = Box<dyn FnMut(&S) -> Result<Vec<GeneratedSample>, HookError> + 'a>;

/// Measures a trainer's model by something better than what it is trained on.
pub(crate) type MeasureGold<'a, S> = Box<dyn FnMut(&S) -> Result<GoldEvaluation, HookError> + 'a>;

/// What is looked at between steps.
pub(crate) struct Looks<'a, S, R> {
    /// An evaluation and when it happens.
    pub(crate) evaluation: Option<(EvaluationConfig, Evaluate<'a, S>)>,
    /// Samples and when they are written.
    pub(crate) samples: Option<(SamplesConfig, Write<'a, S>)>,
    /// What a report says besides its measurements, where it says any.
    pub(crate) news: Option<ReadNews<R>>,
    /// What measures by something better than the rewards, and when.
    pub(crate) gold: Option<(GoldTable, MeasureGold<'a, S>)>,
    /// What keeps in checkpoints how far the batches have been read, if the number of steps does not tell.
    pub(crate) position: Option<&'a mut dyn Hook<S, R>>,
}

impl Session<'_> {
    /// Makes the steps that are left. A run that Ctrl-C ended is an error of the kind [`Interrupted`].
    ///
    /// `describe` says in an error what a batch was made of.
    pub(crate) fn train<S, B: ?Sized, I, E>(
        self,
        trainer: &mut S,
        batches: impl IntoIterator<Item = Result<I, E>>,
        describe: impl Fn(&I) -> String,
        looks: Looks<'_, S, S::Report>,
    ) -> Result<Outcome>
    where
        S: Step<B> + Resumable,
        I: Borrow<B>,
        E: Error + Send + Sync + 'static,
    {
        let total_steps = self.portrait.total_steps;
        let settings = self.portrait.settings.clone();
        let mut store =
            CheckpointStore::open(self.directory.path(), self.identity, self.checkpoints.clone())?;
        let mut evaluation = looks.evaluation.map(|(config, evaluate)| Evaluation::new(config, evaluate));
        let watched = |(table, measure): (GoldTable, _)| GoldWatch::new(table.every, table.alarm, measure);
        let mut gold = looks.gold.map(watched);
        let mut stopping = self.early_stopping.cloned().map(EarlyStopping::new);
        let mut recorder = JsonlRecorder::open(&self.directory.metrics())?;
        let mut recording = Recording::new(vec![&mut recorder]);
        let path = self.directory.samples();
        let samples = looks.samples.map(|(config, write)| SamplesDuringTraining::open(config, &path, write));
        let mut samples = samples.transpose()?;
        let alarms = Alarms::default();
        let open = |read| RolloutsDuringTraining::open(&self.directory.rollouts(), read, alarms.clone());
        let mut rollouts = looks.news.map(open).transpose()?;
        let (mut stopwatch, mut watch) = Watch::new(self.directory, self.portrait, alarms.clone());

        let mut hooks: Vec<&mut dyn Hook<S, S::Report>> = vec![&mut stopwatch];
        hooks.extend(evaluation.as_mut().map(|hook| hook as &mut dyn Hook<S, S::Report>));
        hooks.extend(gold.as_mut().map(|hook| hook as &mut dyn Hook<S, S::Report>));
        hooks.extend(stopping.as_mut().map(|hook| hook as &mut dyn Hook<S, S::Report>));
        hooks.push(&mut recording);
        hooks.extend(samples.as_mut().map(|hook| hook as &mut dyn Hook<S, S::Report>));
        hooks.extend(rollouts.as_mut().map(|hook| hook as &mut dyn Hook<S, S::Report>));
        hooks.push(&mut watch);
        hooks.extend(looks.position.map(|hook| hook as &mut dyn Hook<S, S::Report>));

        let mut steps = TrainingLoop::new(total_steps)
            .stopping_at(interrupt::stop_signal()?)
            .describing(describe)
            .with_checkpoints(&mut store);
        if self.directory.resumes() {
            let resumed = steps.resume(trainer, &mut hooks).context("cannot resume the run")?;
            announce(&resumed, self.directory, total_steps);
        }
        self.directory.write_settings(&settings)?;
        let outcome = steps
            .try_run::<B, E>(trainer, batches, &mut hooks)
            .with_context(|| broken_off(self.directory))?;
        conclude(outcome, self.directory, &alarms)
    }
}

/// Says where a run goes on.
fn announce(resumed: &Resumed, directory: &RunDirectory, total_steps: u64) {
    for damaged in &resumed.passed_over {
        println!("passed over {damaged}");
    }
    let (shown, step) = (directory.path().display(), resumed.step);
    match resumed.step {
        0 => println!("resuming    {shown} has no checkpoint: the run begins anew"),
        _ if resumed.finished => println!("resuming    {shown} was finished after step {step}"),
        _ => println!("resuming    after step {step} of {total_steps}, from {shown}/checkpoint-{step:06}"),
    }
}

fn broken_off(directory: &RunDirectory) -> String {
    let advice = match directory.checkpoints().last() {
        Some(newest) => format!("; --resume goes on from {newest}"),
        None => String::new(),
    };
    format!("training stopped; the model was not written{advice}")
}

fn conclude(outcome: Outcome, directory: &RunDirectory, alarms: &Alarms) -> Result<Outcome> {
    let step = outcome.step;
    match outcome.ending {
        Ending::StopRequested => {
            let advice = format!("its checkpoint is in {}, and --resume goes on", directory.path().display());
            return Err(Interrupted { step, advice }.into());
        }
        Ending::StoppedByHook => println!("stopped     after step {step}: {}", why_stopped(alarms)),
        Ending::Completed | Ending::OutOfBatches | Ending::FinishedBefore => {}
    }
    if outcome.failed_checkpoints > 0 {
        println!("warning     {} checkpoints could not be made", outcome.failed_checkpoints);
    }
    Ok(outcome)
}
