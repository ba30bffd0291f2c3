//! `align quickstart`: the whole way from random weights to an assistant, in a minute and on any machine.
//!
//! A [`World`](world::World) that fits in a few lines gives the text. [`Stage`]s train on it one after another: a base
//! model, from it one that answers, and from that one three that answer better, each by another way. Every model answers
//! the same held-out requests. Beside them stands a model that scores answers.

mod evaluation;
mod lesson;
mod plan;
mod preferences;
mod report;
mod results;
mod scores;
mod stage;
mod workshop;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use align_model::{decoder::Decoder, device::DeviceName};
use align_reward::model::RewardModel;
use anyhow::Context as _;

use evaluation::Evaluation;
use plan::Plan;
use preferences::Duel;
use results::{Results, StageResults};
use scores::{GrpoStage, PpoStage};
use stage::{BaseStage, DpoStage, SftStage, Stage};
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

/// Runs every stage of a plan, measures its model, and writes all files.
fn run_plan(options: &Options, plan: &Plan) -> anyhow::Result<Results> {
    let started = Instant::now();
    let workshop = Workshop::new(options, plan)?;
    let mut results = Results::new(&workshop, options);
    let model = run_stage(&BaseStage, &workshop, workshop.fresh_model(), &mut results)?;
    let model = run_stage(&SftStage, &workshop, model, &mut results)?;
    let reward = train_reward_model(&workshop, &model, &mut results)?;
    run_stage(&DpoStage, &workshop, model.clone(), &mut results)?;
    if let [.., before, after] = &results.stages[..] {
        let (before, after) = (&before.evaluation.answers, &after.evaluation.answers);
        results.duel = Some(Duel::between(&workshop.held_out, before, after));
    }
    run_stage(&PpoStage { reward }, &workshop, model.clone(), &mut results)?;
    run_stage(&GrpoStage, &workshop, model, &mut results)?;
    results.timing.total_seconds = started.elapsed().as_secs_f64();
    results.write(&workshop.out)?;
    report::write_page(&results, &workshop.out)?;
    Ok(results)
}

/// Trains a model and measures it.
fn run_stage(
    stage: &dyn Stage,
    workshop: &Workshop,
    model: Decoder,
    results: &mut Results,
) -> anyhow::Result<Decoder> {
    let started = Instant::now();
    eprintln!("{}: it {}", stage.title(), stage.purpose());
    let outcome =
        stage.run(workshop, model).with_context(|| format!("the stage `{}` failed", stage.name()))?;
    let train_seconds = started.elapsed().as_secs_f64();
    workshop.save(&outcome.model, stage.name())?;
    let evaluation = Evaluation::of(&outcome.model, workshop)
        .with_context(|| format!("the model of the stage `{}` cannot be evaluated", stage.name()))?;
    let seconds = started.elapsed().as_secs_f64();
    let accuracy = results::percent(evaluation.accuracy.share);
    eprintln!("{accuracy} of held-out requests answered right, {seconds:.1} s");
    results.timing.add(stage.name(), train_seconds, seconds - train_seconds);
    results.stages.push(StageResults::new(stage, outcome.training, outcome.gain, evaluation));
    Ok(outcome.model)
}

/// Trains a model that scores answers, and measures it.
fn train_reward_model(
    workshop: &Workshop,
    start: &Decoder,
    results: &mut Results,
) -> anyhow::Result<RewardModel<Decoder>> {
    let started = Instant::now();
    eprintln!("Reward model: it learns from pairs of answers to score the better one higher");
    let (model, reward) = preferences::reward_model(workshop, start).context("the reward model failed")?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{} of held-out pairs ranked right, {seconds:.1} s", results::percent(reward.accuracy.share));
    results.timing.add("reward", seconds, 0.0);
    results.reward = Some(reward);
    Ok(model)
}

#[cfg(test)]
mod tests;
