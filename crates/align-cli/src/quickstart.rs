//! `align quickstart`: the whole way from random weights to an assistant, in a minute and on any machine.
//!
//! A [`World`](world::World) that fits in a few lines gives the text. [`Stage`]s train on it one after another, each from the model of
//! the one before, and every model answers the same held-out requests. A further stage of alignment is one more
//! [`Stage`] in [`stages`].

mod evaluation;
mod plan;
mod report;
mod results;
mod stage;
mod workshop;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use align_model::device::DeviceName;
use anyhow::Context as _;

use evaluation::Evaluation;
use plan::Plan;
use results::{Results, StageResults};
use stage::{BaseStage, SftStage, Stage};
use workshop::Workshop;

/// What `align quickstart` is told.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The directory that everything is written to; it is made if need be.
    pub out: PathBuf,
    /// Seed of the weights, the texts and their order.
    pub seed: u64,
    /// The device to train on.
    pub device: DeviceName,
}

/// Trains the quickstart models, measures each, and writes the report.
///
/// # Errors
/// If the device is not there, a file cannot be written, or training fails.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let results = run_plan(options, &Plan::full())?;
    report::write_summary(&mut std::io::stdout().lock(), &results, &options.out)
        .context("cannot print the summary")
}

/// The stages in order.
fn stages() -> Vec<Box<dyn Stage>> {
    vec![Box::new(BaseStage), Box::new(SftStage)]
}

/// Runs every stage of a plan, measures its model, and writes all files.
fn run_plan(options: &Options, plan: &Plan) -> anyhow::Result<Results> {
    let started = Instant::now();
    let workshop = Workshop::new(options, plan)?;
    let mut results = Results::new(&workshop, options);
    let mut model = workshop.fresh_model();
    for stage in stages() {
        let stage_started = Instant::now();
        eprintln!("{}: it {}", stage.title(), stage.purpose());
        let outcome =
            stage.run(&workshop, model).with_context(|| format!("the stage `{}` failed", stage.name()))?;
        let train_seconds = stage_started.elapsed().as_secs_f64();
        workshop.save(&outcome.model, stage.name())?;
        let evaluation = Evaluation::of(&outcome.model, &workshop)
            .with_context(|| format!("the model of the stage `{}` cannot be evaluated", stage.name()))?;
        let seconds = stage_started.elapsed().as_secs_f64();
        eprintln!(
            "{} of held-out requests answered right, {seconds:.1} s",
            results::percent(evaluation.accuracy.share)
        );
        results.timing.add(stage.name(), train_seconds, seconds - train_seconds);
        results.stages.push(StageResults::new(stage.as_ref(), outcome.training, evaluation));
        model = outcome.model;
    }
    results.timing.total_seconds = started.elapsed().as_secs_f64();
    results.write(&workshop.out)?;
    report::write_page(&results, &workshop.out)?;
    Ok(results)
}

#[cfg(test)]
mod tests;
