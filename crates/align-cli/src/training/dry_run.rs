//! What a run of any method needs: memory, room on the disk, time.

use std::{path::PathBuf, time::Instant};

use align_model::{checkpoint::CheckpointConfig, train::Step};
use anyhow::{Context as _, Result, anyhow};
use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};
use clap::ValueEnum;

use super::{
    findings::Findings,
    machine::{self, bytes},
    report::human,
};
use crate::page::grouped;

/// How much a dry run tries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Depth {
    /// Everything, two small steps on the real model included.
    Full,
    /// Everything but steps.
    Fast,
}

/// How many numbers a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// Those that are trained.
    pub(crate) trained: u64,
    /// Those that are not.
    pub(crate) frozen: u64,
}

/// What a run will need.
#[derive(Debug)]
pub(crate) struct Forecast {
    /// Of the model.
    pub(crate) parameters: Parameters,
    /// Size of what is written at the end.
    pub(crate) saved_bytes: u64,
    /// How many checkpoints are kept.
    pub(crate) checkpoints: CheckpointConfig,
    /// Whether the parameters are averaged.
    pub(crate) averaged: bool,
    /// Where everything is written.
    pub(crate) out: PathBuf,
}

struct Count(Parameters);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let count = parameter.lazy_shape().num_elements() as u64;
        if parameter.val().is_require_grad() { self.0.trained += count } else { self.0.frozen += count }
    }
}

impl Parameters {
    /// Counts those of a model that a trainer has.
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let mut count = Count(Self { trained: 0, frozen: 0 });
        model.visit(&mut count);
        count.0
    }
}

impl Forecast {
    /// A checkpoint has three numbers a trained parameter: itself and two moments; four with an average.
    fn checkpoint_bytes(&self) -> u64 {
        let copies = if self.averaged { 4 } else { 3 };
        copies * 4 * self.parameters.trained
    }

    /// The most that lies on the disk at once: one checkpoint more than are kept, while one is written.
    fn disk_bytes(&self) -> u64 {
        let best = u64::from(self.checkpoints.keep_best.is_some());
        let kept = self.checkpoints.keep_last.get() as u64 + best;
        (kept + 1) * self.checkpoint_bytes() + self.saved_bytes
    }

    /// Prints what is needed; what is not there becomes a problem.
    pub(crate) fn print_and_check(&self, findings: &mut Findings) {
        let Parameters { trained, frozen } = self.parameters;
        println!("parameters  {} trained, {} frozen", grouped(trained), grouped(frozen));
        let (checkpoint, needed) = (self.checkpoint_bytes(), self.disk_bytes());
        let free = machine::free_disk(&self.out);
        let there = free.map_or_else(String::new, |free| format!(", {} free", bytes(free)));
        println!(
            "disk        up to {}: checkpoints of {} and a model of {}{there}",
            bytes(needed),
            bytes(checkpoint),
            bytes(self.saved_bytes)
        );
        findings.keep(enough(needed, free, &self.out));
    }

    /// Prints how long a run will take.
    pub(crate) fn print_time(seconds_a_step: f64, steps: u64) {
        println!(
            "time        about {}: {} a step, evaluation and checkpoints not counted",
            human(seconds_a_step * steps as f64),
            human(seconds_a_step)
        );
    }
}

fn enough(needed: u64, free: Option<u64>, out: &std::path::Path) -> Result<()> {
    match free.filter(|free| *free < needed) {
        None => Ok(()),
        Some(free) => Err(anyhow!(
            "the disk of {} has {} left and the run needs up to {}: make room, or keep fewer checkpoints with checkpoints.keep_last",
            out.display(),
            bytes(free),
            bytes(needed)
        )),
    }
}

/// Seconds of the second of two steps; the first one warms up. The trainer is of no use afterwards.
pub(crate) fn seconds_of_steps<S: Step<B>, B: ?Sized>(trainer: &mut S, batch: &B) -> Result<f64> {
    trainer.step(batch).context("a first step fails")?;
    let started = Instant::now();
    trainer.step(batch).context("a second step fails")?;
    Ok(started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn forecast(averaged: bool) -> Forecast {
        Forecast {
            parameters: Parameters { trained: 1000, frozen: 5 },
            saved_bytes: 4020,
            checkpoints: CheckpointConfig::default(),
            averaged,
            out: "out".into(),
        }
    }

    #[test]
    fn the_disk_holds_a_checkpoint_more_than_are_kept() {
        assert_eq!(forecast(false).checkpoint_bytes(), 12_000);
        assert_eq!(forecast(false).disk_bytes(), 3 * 12_000 + 4020);
        assert_eq!(forecast(true).checkpoint_bytes(), 16_000);
        assert!(
            enough(10, Some(9), Path::new("out")).unwrap_err().to_string().contains("needs up to 10 bytes")
        );
        assert!(enough(10, None, Path::new("out")).is_ok() && enough(10, Some(10), Path::new("out")).is_ok());
    }
}
