//! The stages of training.

use std::path::Path;
use std::sync::Arc;

use align_model::{
    chat::Message,
    data::{Located, SftRecord, ShuffledBatches, TemplateColumns},
    decoder::Decoder,
    sft::{LossOn, SftConfig, SftExample, SftReport, SftTokenizer, SftTrainer},
    train::{Flow, Hook, HookError, JsonlRecorder, Recording, StepEvent, fit},
};
use serde::Serialize;

use super::{plan::Training, workshop::Workshop, world::Task};
use crate::{files, training::progress::ProgressDisplay};

/// One step on the way from random weights to an assistant.
pub(super) trait Stage {
    /// The name of its model's directory.
    fn name(&self) -> &'static str;

    /// Its name for people.
    fn title(&self) -> &'static str;

    /// What it teaches, in a sentence.
    fn purpose(&self) -> &'static str;

    /// Trains the model of the stage before.
    fn run(&self, workshop: &Workshop, model: Decoder) -> anyhow::Result<Outcome>;
}

/// What a stage leaves.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The model.
    pub(super) model: Decoder,
    /// How it was made.
    pub(super) training: TrainingRecord,
}

/// What is kept of a training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct TrainingRecord {
    /// Optimiser steps.
    pub(super) steps: u64,
    /// Sequences that were seen.
    pub(super) samples: usize,
    /// Tokens that were seen, prompts included.
    pub(super) tokens: u64,
    /// Mean loss over the last steps.
    pub(super) final_loss: f64,
    /// The settings of the trainer.
    pub(super) config: SftConfig,
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

/// A model that continues text.
#[derive(Debug)]
pub(super) struct BaseStage;

impl Stage for BaseStage {
    fn name(&self) -> &'static str {
        "base"
    }

    fn title(&self) -> &'static str {
        "Base model"
    }

    fn purpose(&self) -> &'static str {
        "reads plain text from random weights: it learns the facts, but not to answer"
    }

    fn run(&self, workshop: &Workshop, model: Decoder) -> anyhow::Result<Outcome> {
        let plan = workshop.plan.base;
        let documents = workshop.world.base_corpus(plan.samples());
        let records = documents.into_iter().map(|text| SftRecord::Text { text });
        let config = plan.config(LossOn::Everything, workshop.seed)?;
        train(workshop, self.name(), Lesson { model, records: located("corpus", records), config, plan })
    }
}

/// Supervised fine-tuning on conversations.
#[derive(Debug)]
pub(super) struct SftStage;

impl Stage for SftStage {
    fn name(&self) -> &'static str {
        "sft"
    }

    fn title(&self) -> &'static str {
        "Supervised fine-tuning"
    }

    fn purpose(&self) -> &'static str {
        "sees conversations and learns from the assistant's words alone: to answer what is asked, and to stop"
    }

    fn run(&self, workshop: &Workshop, model: Decoder) -> anyhow::Result<Outcome> {
        let plan = workshop.plan.sft;
        let tasks = workshop.world.training_tasks(plan.samples());
        let records = tasks.iter().map(conversation);
        let config = plan.config(LossOn::Assistant, workshop.seed)?;
        let records = located("conversations", records);
        train(workshop, self.name(), Lesson { model, records, config, plan })
    }
}

/// A request and its right answer.
pub(super) fn conversation(task: &Task) -> SftRecord {
    let messages = vec![Message::user(task.request()), Message::assistant(task.answer())];
    SftRecord::Conversation { messages, template: TemplateColumns::default() }
}

/// Gives records the places that error messages name.
pub(super) fn located(source: &str, records: impl Iterator<Item = SftRecord>) -> Vec<Located<SftRecord>> {
    let path: Arc<Path> = Path::new(source).into();
    let place = |(index, record)| Located {
        source: 0,
        path: path.clone(),
        line: index + 1,
        record,
        extra: serde_json::Map::new(),
    };
    records.enumerate().map(place).collect()
}

/// A training run that is about to begin.
struct Lesson {
    model: Decoder,
    records: Vec<Located<SftRecord>>,
    config: SftConfig,
    plan: Training,
}

/// Maximises the likelihood of the records.
fn train(workshop: &Workshop, name: &str, lesson: Lesson) -> anyhow::Result<Outcome> {
    let Lesson { model, records, config, plan } = lesson;
    let tokenizer = SftTokenizer::new(&config, &workshop.tokenizer, Some(&workshop.templates));
    let examples = tokenizer.samples(&records)?.examples;
    let batches = ShuffledBatches::new(examples.len(), plan.batch_size, config.seed)
        .map(|batch| batch.into_iter().map(|index| examples[index].clone()).collect::<Vec<SftExample>>());
    let metrics = workshop.out.join(format!("metrics-{name}.jsonl"));
    let part = metrics.with_added_extension("part");
    let mut recorder = JsonlRecorder::open(&part)?;
    let mut recording = Recording::new(vec![&mut recorder]);
    let mut curves = CurveRecorder::default();
    let mut trainer = SftTrainer::new(model, &config, plan.steps)?;
    let steps = fit::<_, [SftExample], _>(
        &mut trainer,
        batches,
        plan.steps,
        &mut [&mut recording, &mut curves, &mut ProgressDisplay::start(plan.steps)],
    )?;
    files::rename(&part, &metrics)?;
    let training = TrainingRecord {
        steps,
        samples: examples.len(),
        tokens: curves.tokens,
        final_loss: curves.final_loss(),
        config,
        curves: curves.finish(),
    };
    Ok(Outcome { model: trainer.into_model(), training })
}

/// Keeps what the report draws.
#[derive(Debug, Default)]
struct CurveRecorder {
    loss: Vec<(u64, f64)>,
    accuracy: Vec<(u64, f64)>,
    tokens: u64,
}

/// Steps over which the final loss is averaged: single batches are noisy.
const FINAL_STEPS: usize = 20;

impl CurveRecorder {
    fn final_loss(&self) -> f64 {
        let last = &self.loss[self.loss.len().saturating_sub(FINAL_STEPS)..];
        last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len().max(1) as f64
    }

    fn finish(self) -> Vec<Curve> {
        vec![
            Curve { name: "loss", points: self.loss },
            Curve { name: "mean_token_accuracy", points: self.accuracy },
        ]
    }
}

impl<S> Hook<S, SftReport> for CurveRecorder {
    fn after_step(&mut self, event: &mut StepEvent<'_, SftReport>, _: &S) -> Result<Flow, HookError> {
        let (place, report) = (event.progress, event.report);
        self.loss.push((place.step, report.loss));
        self.accuracy.push((place.step, report.mean_token_accuracy));
        self.tokens = report.num_tokens;
        Ok(Flow::Continue)
    }
}
