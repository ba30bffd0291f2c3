//! A training run of the quickstart: its batches, its records.

use align_model::{
    data::ShuffledBatches,
    train::{Flow, Hook, HookError, JsonlRecorder, Recording, Report, Step, StepEvent, fit},
};
use serde::Serialize;

use super::{plan::Training, workshop::Workshop};
use crate::{files, training::progress::ProgressDisplay};

/// What is kept of a training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TrainingRecord {
    /// Optimiser steps.
    pub(super) steps: u64,
    /// Sequences or pairs that were seen.
    pub(super) samples: usize,
    /// Tokens that were seen, prompts included.
    pub(super) tokens: u64,
    /// Mean loss over the last steps.
    pub(super) final_loss: f64,
    /// The sizes of the run.
    pub(super) sizes: Training,
    /// The settings of the trainer.
    pub(super) config: serde_json::Value,
    /// What was measured along the way.
    pub(super) curves: Vec<Curve>,
}

/// A measurement over the steps of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Curve {
    /// What is measured.
    pub(super) name: &'static str,
    /// Step, counted from 1, and value.
    pub(super) points: Vec<(u64, f64)>,
}

/// A training run that is about to begin.
#[derive(Debug)]
pub(super) struct Lesson<'a, E> {
    /// What its files are named after.
    pub(super) name: &'a str,
    /// What is learnt, each once.
    pub(super) examples: Vec<E>,
    /// The sizes of the run.
    pub(super) sizes: Training,
    /// The settings of the trainer.
    pub(super) config: serde_json::Value,
    /// What is drawn of it.
    pub(super) curves: [&'static str; 2],
}

impl<E: Clone> Lesson<'_, E> {
    /// Makes the steps.
    pub(super) fn teach<S: Step<[E]>>(
        self,
        workshop: &Workshop,
        trainer: &mut S,
    ) -> anyhow::Result<TrainingRecord> {
        let Self { name, examples, sizes, config, curves } = self;
        let batches = ShuffledBatches::new(examples.len(), sizes.batch_size, workshop.seed)
            .map(|batch| batch.into_iter().map(|index| examples[index].clone()).collect::<Vec<E>>());
        let metrics = workshop.out.join(format!("metrics-{name}.jsonl"));
        let part = metrics.with_added_extension("part");
        let mut recorder = JsonlRecorder::open(&part)?;
        let mut recording = Recording::new(vec![&mut recorder]);
        let mut curves = CurveRecorder::of(curves);
        let hooks: &mut [&mut dyn Hook<S, S::Report>] =
            &mut [&mut recording, &mut curves, &mut ProgressDisplay::start(sizes.steps)];
        let steps = fit::<_, [E], _>(trainer, batches, sizes.steps, hooks)?;
        files::rename(&part, &metrics)?;
        let (tokens, final_loss) = (curves.tokens, curves.final_loss());
        Ok(TrainingRecord {
            steps,
            samples: examples.len(),
            tokens,
            final_loss,
            sizes,
            config,
            curves: curves.curves,
        })
    }
}

/// Keeps what the report draws.
#[derive(Debug)]
struct CurveRecorder {
    curves: Vec<Curve>,
    losses: Vec<f64>,
    tokens: u64,
}

/// Steps over which the final loss is averaged: single batches are noisy.
const FINAL_STEPS: usize = 20;

impl CurveRecorder {
    fn of(names: [&'static str; 2]) -> Self {
        let curves = names.map(|name| Curve { name, points: Vec::new() }).into();
        Self { curves, losses: Vec::new(), tokens: 0 }
    }

    fn final_loss(&self) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(FINAL_STEPS)..];
        last.iter().sum::<f64>() / last.len().max(1) as f64
    }
}

impl<S, R: Report> Hook<S, R> for CurveRecorder {
    fn after_step(&mut self, event: &mut StepEvent<'_, R>, _: &S) -> Result<Flow, HookError> {
        for curve in &mut self.curves {
            let value = event.metrics.get(curve.name);
            curve.points.extend(value.map(|value| (event.progress.step, value)));
        }
        self.losses.extend(event.metrics.get("loss"));
        self.tokens = event.metrics.get("num_tokens").unwrap_or_default() as u64;
        Ok(Flow::Continue)
    }
}
