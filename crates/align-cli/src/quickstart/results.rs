//! The numbers of a run, as `results.json` has them.

use std::path::Path;

use burn::module::Module as _;
use serde::Serialize;
use serde_json::Value;

use super::{
    Options,
    evaluation::Evaluation,
    lesson::TrainingRecord,
    plan::Plan,
    preferences::{Duel, RewardResults},
    scores::Gain,
    stage::Stage,
    workshop::Workshop,
};
use crate::files;

/// Everything that a run found out. Only [`Timing`] differs between two runs with the same seed on one machine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Results {
    /// The version of the command.
    pub(super) version: &'static str,
    /// The seed of everything.
    pub(super) seed: u64,
    /// The device that computed.
    pub(super) device: String,
    /// The sizes of the run.
    pub(super) plan: Plan,
    /// The `config.json` of all models.
    pub(super) model: Value,
    /// Numbers that a model learns.
    pub(super) parameters: usize,
    /// What every model is asked.
    pub(super) held_out: Vec<Question>,
    /// The stages in order.
    pub(super) stages: Vec<StageResults>,
    /// The model that scores answers, which stands beside the stages.
    pub(super) reward: Option<RewardResults>,
    /// Answers after preference learning against those before it.
    pub(super) duel: Option<Duel>,
    /// How long everything took.
    pub(super) timing: Timing,
}

/// A held-out request.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Question {
    /// Its kind.
    pub(super) kind: &'static str,
    /// What the user says.
    pub(super) request: String,
    /// A right answer.
    pub(super) answer: String,
}

/// What a stage did, and what its model can do.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StageResults {
    /// The name of its model's directory.
    pub(super) name: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    /// What it teaches.
    pub(super) purpose: &'static str,
    /// The training run.
    pub(super) training: TrainingRecord,
    /// How its model answers.
    pub(super) evaluation: Evaluation,
    /// What it gained, where it learnt from scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gain: Option<Gain>,
}

/// Seconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Timing {
    /// From the beginning until the last evaluation.
    pub(super) total_seconds: f64,
    /// Each stage's share.
    pub(super) stages: Vec<StageTiming>,
}

/// The seconds of a stage.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StageTiming {
    name: &'static str,
    train_seconds: f64,
    evaluate_seconds: f64,
}

impl Results {
    /// The results of a run that has not begun.
    pub(super) fn new(workshop: &Workshop, options: &Options) -> Self {
        let question = |task: &super::world::Task| Question {
            kind: task.kind().name(),
            request: task.request(),
            answer: task.answer(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            seed: workshop.seed,
            device: options.device.to_string(),
            plan: workshop.plan,
            model: workshop.architecture.json().clone(),
            parameters: workshop.fresh_model().num_params(),
            held_out: workshop.held_out.iter().map(question).collect(),
            stages: Vec::new(),
            reward: None,
            duel: None,
            timing: Timing::default(),
        }
    }

    /// Writes `results.json`.
    pub(super) fn write(&self, out: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        files::write(&out.join("results.json"), &text)
    }
}

impl StageResults {
    /// What a finished stage found out.
    pub(super) fn new(
        stage: &dyn Stage,
        training: TrainingRecord,
        gain: Option<Gain>,
        evaluation: Evaluation,
    ) -> Self {
        let (name, title, purpose) = (stage.name(), stage.title(), stage.purpose());
        Self { name, title, purpose, training, evaluation, gain }
    }
}

impl Timing {
    /// Adds a stage.
    pub(super) fn add(&mut self, name: &'static str, train_seconds: f64, evaluate_seconds: f64) {
        self.stages.push(StageTiming { name, train_seconds, evaluate_seconds });
    }
}

/// A share for people. Its number and sign stay on one line.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * share)
}
