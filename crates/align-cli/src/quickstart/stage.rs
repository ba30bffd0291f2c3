//! The stages of training.

use std::path::Path;
use std::sync::Arc;

use align_dpo::{DpoTrainer, Reference};
use align_model::{
    chat::Message,
    data::{Located, SftRecord, TemplateColumns},
    decoder::Decoder,
    sft::{LossOn, SftConfig, SftExample, SftTokenizer, SftTrainer},
};

use super::{
    lesson::{Lesson, TrainingRecord},
    plan::Training,
    preferences,
    scores::Gain,
    workshop::Workshop,
    world::{Manner, Task},
};

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
    /// What it gained, where it learnt from scores.
    pub(super) gain: Option<Gain>,
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
        train(workshop, self.name(), (model, &located("corpus", records)), (&config, plan))
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
        let records = tasks.iter().enumerate().map(|(index, task)| match index % KIND_EVERY {
            0 => answered(task, &Manner::Kind.say(&task.answer())),
            _ => conversation(task),
        });
        let config = plan.config(LossOn::Assistant, workshop.seed)?;
        train(workshop, self.name(), (model, &located("conversations", records)), (&config, plan))
    }
}

/// Preference learning on pairs of answers.
#[derive(Debug)]
pub(super) struct DpoStage;

impl Stage for DpoStage {
    fn name(&self) -> &'static str {
        "dpo"
    }

    fn title(&self) -> &'static str {
        "Preference learning"
    }

    fn purpose(&self) -> &'static str {
        "compares two answers to each request and makes the better one more likely than the worse: to be right, and to be kind"
    }

    fn run(&self, workshop: &Workshop, model: Decoder) -> anyhow::Result<Outcome> {
        let sizes = workshop.plan.dpo;
        let examples = preferences::examples(workshop, &workshop.world.preferences(sizes.samples()))?;
        let config = sizes.dpo_config(workshop.seed)?;
        let reference = Reference::Model(model.clone());
        let mut trainer = DpoTrainer::new(model, reference, &config, sizes.steps)?;
        let (config, curves) = (serde_json::to_value(&config)?, ["loss", "rewards/accuracies"]);
        let lesson = Lesson { name: self.name(), examples, sizes, config, curves };
        let training = lesson.teach(workshop, &mut trainer)?;
        Ok(Outcome { model: trainer.into_model(), training, gain: None })
    }
}

/// One in so many conversations has a kind answer: what a model never does cannot be rewarded either.
const KIND_EVERY: usize = 7;

/// A request and its right answer.
pub(super) fn conversation(task: &Task) -> SftRecord {
    answered(task, &task.answer())
}

/// A request and an answer.
fn answered(task: &Task, answer: &str) -> SftRecord {
    let messages = vec![Message::user(task.request()), Message::assistant(answer)];
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

/// Maximises the likelihood of the records.
fn train(
    workshop: &Workshop,
    name: &str,
    (model, records): (Decoder, &[Located<SftRecord>]),
    (config, sizes): (&SftConfig, Training),
) -> anyhow::Result<Outcome> {
    let tokenizer = SftTokenizer::new(config, &workshop.tokenizer, Some(&workshop.templates));
    let examples = tokenizer.samples(records)?.examples;
    let mut trainer = SftTrainer::new(model, config, sizes.steps)?;
    let (config, curves) = (serde_json::to_value(config)?, ["loss", "mean_token_accuracy"]);
    let lesson: Lesson<'_, SftExample> = Lesson { name, examples, sizes, config, curves };
    let training = lesson.teach(workshop, &mut trainer)?;
    Ok(Outcome { model: trainer.into_model(), training, gain: None })
}
