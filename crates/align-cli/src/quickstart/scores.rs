//! Learning from scores: a verifiable reward, a trained one, and how much of each a model gets.

use std::num::NonZeroUsize;
use std::sync::Arc;

use align_model::{
    chat::{Message, RenderOptions},
    data::{PromptRecord, TemplateColumns},
    decoder::Decoder,
    generate::StopAt,
};
use align_reward::{
    function::{RewardFn, each_fn},
    model::{CompletionForm, RewardModel, RewardModelFn, RewardReader},
    rollout::Rollout,
};
use align_rl::{
    GroupTrainer, PpoModels, PpoTrainer, Rewards,
    critic::value_head,
    group::{HeldOut, MeanReward},
    rollout::{PromptExample, PromptTokenizer, RolloutConfig},
};
use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    evaluation::Interval,
    lesson::Lesson,
    stage::{Outcome, Stage},
    workshop::Workshop,
    world::{Manner, Task, worth},
};

/// What a model gets for answers to held-out requests that are sampled as they are in training, before and after a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Gain {
    /// The reward.
    pub(super) reward: &'static str,
    /// What the model of the stage before gets.
    pub(super) before: Interval,
    /// What the stage's model gets.
    pub(super) after: Interval,
}

/// Answers to each held-out request that are scored.
const ANSWERS_PER_REQUEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// The column of a prompt that says which task it is.
const TASK: &str = "task";

/// Policy optimisation from groups of answers, with a reward that anybody can check.
#[derive(Debug)]
pub(super) struct GrpoStage;

impl Stage for GrpoStage {
    fn name(&self) -> &'static str {
        "grpo"
    }

    fn title(&self) -> &'static str {
        "GRPO"
    }

    fn purpose(&self) -> &'static str {
        "answers each request eight times, is told which answers are right and kind, and makes those more likely than the others"
    }

    fn run(&self, workshop: &Workshop, model: Decoder) -> anyhow::Result<Outcome> {
        let sizes = workshop.plan.grpo;
        let tasks = workshop.world.training_tasks(sizes.samples());
        let (examples, rollout) = (prompts(workshop, &tasks)?, rollouts(workshop)?);
        let config = sizes.grpo_config(rollout.clone(), workshop.seed)?;
        let reference = config.reference_policy().map(|_| model.clone());
        let (before, tokenizer) = (model.clone(), workshop.tokenizer.clone());
        let rewards = Rewards::one(right_and_kind(&tasks));
        let mut trainer =
            GroupTrainer::new(model, reference, rewards, Some(tokenizer), &config, sizes.steps)?;
        let (config, curves) = (serde_json::to_value(&config)?, ["reward", "completions/mean_length"]);
        let training =
            Lesson { name: self.name(), examples, sizes, config, curves }.teach(workshop, &mut trainer)?;
        let model = trainer.into_model();
        let rewards = Rewards::one(right_and_kind(&workshop.held_out));
        let gain = gain("right and kind", workshop, [&before, &model], &rollout, rewards)?;
        Ok(Outcome { model, training, gain: Some(gain) })
    }
}

/// Policy optimisation with a critic, against the reward model.
#[derive(Debug)]
pub(super) struct PpoStage {
    /// The reward model.
    pub(super) reward: RewardModel<Decoder>,
}

impl Stage for PpoStage {
    fn name(&self) -> &'static str {
        "ppo"
    }

    fn title(&self) -> &'static str {
        "PPO"
    }

    fn purpose(&self) -> &'static str {
        "answers requests and learns from what the reward model says of its answers; a critic learns what to expect of every word"
    }

    fn run(&self, workshop: &Workshop, model: Decoder) -> anyhow::Result<Outcome> {
        let sizes = workshop.plan.ppo;
        let tasks = workshop.world.training_tasks(sizes.samples());
        let (examples, rollout) = (prompts(workshop, &tasks)?, rollouts(workshop)?);
        let config = sizes.ppo_config(rollout.clone(), workshop.seed)?;
        let reference = config.reference_policy().map(|_| model.clone());
        let (before, tokenizer) = (model.clone(), workshop.tokenizer.clone());
        let head = value_head(workshop.architecture.config().hidden_size, workshop.device());
        let critic = RewardModel::new(model.clone().without_head(), head).into();
        let rewards = Rewards::one(self.reward(workshop)?);
        let models = PpoModels { policy: model, reference, critic };
        let mut trainer = PpoTrainer::new(models, rewards, Some(tokenizer), &config, sizes.steps)?;
        let (config, curves) = (serde_json::to_value(&config)?, ["objective/scores", "objective/kl"]);
        let training =
            Lesson { name: self.name(), examples, sizes, config, curves }.teach(workshop, &mut trainer)?;
        let model = trainer.into_model();
        let rewards = Rewards::one(self.reward(workshop)?);
        let gain = gain("reward model", workshop, [&before, &model], &rollout, rewards)?;
        Ok(Outcome { model, training, gain: Some(gain) })
    }
}

impl PpoStage {
    fn reward(&self, workshop: &Workshop) -> anyhow::Result<RewardModelFn<Decoder>> {
        let reader = RewardReader {
            tokenizer: workshop.tokenizer.clone(),
            templates: Some(workshop.templates.clone()),
            render: RenderOptions::default(),
            reads: CompletionForm::Text,
        };
        let at_once = NonZeroUsize::MIN.saturating_add(63);
        Ok(RewardModelFn::new("reward_model", self.reward.clone(), reader)?.in_batches_of(at_once))
    }
}

/// 1 for an answer that is right and kind, else 0.
fn right_and_kind(tasks: &[Task]) -> impl RewardFn + Send + use<> {
    let tasks: Arc<[Task]> = tasks.into();
    each_fn("right_and_kind", move |rollout: &Rollout| {
        let index =
            rollout.columns.get(TASK).and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let task = index.and_then(|index| tasks.get(index));
        task.is_some_and(|task| worth(task, &rollout.completion) == Some(Manner::Kind))
    })
}

/// Requests as a model reads them, each with the number of its task.
fn prompts(workshop: &Workshop, tasks: &[Task]) -> anyhow::Result<Vec<PromptExample>> {
    let tokenizer = PromptTokenizer {
        tokenizer: &workshop.tokenizer,
        templates: Some(&workshop.templates),
        render: &RenderOptions::prompt(),
    };
    let prompt = |(index, task): (usize, &Task)| {
        let prompt = vec![Message::user(task.request())];
        let record = PromptRecord::Chat { prompt, template: TemplateColumns::default() };
        let columns = Map::from_iter([(TASK.to_owned(), Value::from(index))]);
        Ok(tokenizer.example(&record, columns)?)
    };
    tasks.iter().enumerate().map(prompt).collect()
}

/// How answers are sampled: as the model's probabilities have it.
fn rollouts(workshop: &Workshop) -> anyhow::Result<RolloutConfig> {
    Ok(RolloutConfig {
        max_new_tokens: super::evaluation::LONGEST_ANSWER,
        stop: StopAt { tokens: vec![workshop.end_token()?], strings: Vec::new() },
        batch_size: NonZeroUsize::MIN.saturating_add(255),
        ..RolloutConfig::default()
    })
}

/// What two models get for answers to the held-out requests.
fn gain(
    name: &'static str,
    workshop: &Workshop,
    [before, after]: [&Decoder; 2],
    rollout: &RolloutConfig,
    mut rewards: Rewards,
) -> anyhow::Result<Gain> {
    let prompts = prompts(workshop, &workshop.held_out)?;
    let rollout = &RolloutConfig { samples: ANSWERS_PER_REQUEST, ..rollout.clone() };
    let (seed, tokenizer) = (workshop.seed, Some(&workshop.tokenizer));
    let held_out = HeldOut { prompts: &prompts, rollout, seed, tokenizer };
    let mut scored = |model: &Decoder| {
        let found = held_out.evaluate(model, None, &mut rewards)?.reward();
        let MeanReward { mean, margin, prompts, .. } = found.context("no answer has a score")?;
        anyhow::Ok(Interval { mean, low: mean - margin, high: mean + margin, count: prompts })
    };
    Ok(Gain { reward: name, before: scored(before)?, after: scored(after)? })
}
