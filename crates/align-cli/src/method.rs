//! What tells one way of training from another; everything around it is the same for all.

pub(crate) mod distill;
pub(crate) mod dpo;
mod example;
pub(crate) mod grpo;
pub(crate) mod kto;
pub(crate) mod online;
pub(crate) mod ppo;
mod preference;
mod prompted;
pub(crate) mod raft;
pub(crate) mod reward;
mod reward_models;
mod scored;
pub(crate) mod sft;
mod trained_model;

use std::{
    fmt,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
};

use align_model::{
    causal_lm::{Recompute, TokenBatch},
    chat::ChatTemplates,
    checkpoint::Resumable,
    data::{Located, Record, ShuffledBatches},
    decoder::{ComputeDtype, Decoder},
    pretrained::Checkpoint,
    sft::{Duration, Packing},
    tokenizer::Tokenizer,
    train::{Averaged, Step, Trains},
};
use align_rl::{
    rollout::RolloutRow,
    watch::{Alarm, GoldEvaluation},
};
use anyhow::{Result, bail};
use burn::tensor::Device;
use chrono::NaiveDateTime;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    run_file::{CriticTable, TeacherTable, rewards::RewardsTable},
    training::report::Fact,
};

pub(crate) use example::{Example, Learnt, Note, Part, Tokenized};
pub(crate) use reward_models::RewardModels;
pub(crate) use trained_model::TrainedModel;

/// A way of training.
pub(crate) trait Method: fmt::Debug + Sized {
    /// What it is, for people.
    const TITLE: &'static str;
    /// The settings, which are a table of the run file.
    type Config: Settings;
    /// What a data file holds.
    type Record: Record + fmt::Debug;
    /// A record in tokens.
    type Example: Example;
    /// What a batch counts as one.
    type Row: Clone + fmt::Debug;
    /// What is trained.
    type Model: TrainedModel;
    /// Who trains it.
    type Trainer: Step<[Self::Row]> + Trains<Model = Self::Model> + Resumable + fmt::Debug;

    /// How records become examples.
    fn tokenize<'a>(config: &'a Self::Config, texts: Texts<'a>) -> Tokenize<'a, Self>;

    /// The rows of these examples.
    fn rows(config: &Self::Config, examples: &[Self::Example]) -> Vec<Self::Row>;

    /// Tokens of a row.
    fn tokens(row: &Self::Row) -> usize;

    /// The largest pass over some rows: what it reads, and how many targets it has.
    fn pass(config: &Self::Config, rows: &[&Self::Row]) -> (TokenBatch, usize);

    /// Copies of what is trained that are kept besides it, such as a reference.
    fn copies(_config: &Self::Config) -> usize {
        0
    }

    /// What a step needs besides its passes.
    fn beside(
        _config: &Self::Config,
        _examples: &[Self::Example],
        _model: &Decoder,
        _kit: &Kit<'_>,
    ) -> Result<Vec<Beside>> {
        Ok(Vec::new())
    }

    /// The trainer at the start of a run.
    fn trainer(
        config: &Self::Config,
        model: Self::Model,
        lesson: Lesson<'_, Self::Example>,
    ) -> Result<Self::Trainer>;

    /// What is measured on examples that are not trained on: names without `eval_`, and values.
    fn evaluate(
        config: &Self::Config,
        trainer: &Averaged<Self::Trainer>,
        examples: &[Self::Example],
        kit: &Kit<'_>,
    ) -> Result<Measured>;

    /// What a policy gets by the rewards and by a better measure; `models` are the policy and what it began as.
    fn gold(
        _config: &Self::Config,
        _models: [&Decoder; 2],
        _examples: &[Self::Example],
        _gold: &RewardsTable,
        _kit: &Kit<'_>,
    ) -> Result<GoldEvaluation> {
        bail!("only methods that learn from rewards have a [gold]")
    }

    /// What a step says besides its measurements.
    fn news(_report: &ReportOf<Self>) -> News<'_> {
        News::default()
    }

    /// Checks what only a look at examples can tell, such as whether rewards find what they need.
    fn check_examples(_config: &Self::Config, _examples: &[Self::Example], _kit: &Kit<'_>) -> Result<()> {
        Ok(())
    }

    /// Rows that a step is tried on: those of a forward pass, unless it takes others to make one.
    fn rows_tried(config: &Self::Config) -> usize {
        config.plan().rows_per_pass()
    }

    /// What a model makes of some examples before it has learnt anything, for people.
    fn tried(
        _config: &Self::Config,
        _model: &Self::Model,
        _examples: &[Self::Example],
        _kit: &Kit<'_>,
    ) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What the report tells of the settings.
    fn facts(config: &Self::Config) -> Vec<Fact>;
}

/// What a method's trainer says of a step.
pub(crate) type ReportOf<M> = <<M as Method>::Trainer as Step<[<M as Method>::Row]>>::Report;

/// What a step says besides its measurements.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct News<'a> {
    /// What was sampled, and what it got.
    pub(crate) rollouts: &'a [RolloutRow],
    /// What is wrong.
    pub(crate) alarms: &'a [Alarm],
}

/// Memory that a step needs besides its passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    /// What for.
    pub(crate) name: &'static str,
    /// How many bytes.
    pub(crate) bytes: u64,
}

/// What a trainer works with besides its model, where it samples and scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kit<'a> {
    /// Where the model comes from.
    pub(crate) start: Start<'a>,
    /// The model's tokenizer.
    pub(crate) tokenizer: &'a Tokenizer,
    /// The tokens that end a completion.
    pub(crate) ends: &'a [u32],
    /// What is learnt from.
    pub(crate) rewards: &'a RewardsTable,
    /// What a critic is, unless it is what it is by default.
    pub(crate) critic: Option<&'a CriticTable>,
    /// Who is learnt from, where somebody is.
    pub(crate) teacher: Option<&'a TeacherTable>,
    /// The number format of activations and products.
    pub(crate) compute: ComputeDtype,
    /// Reward models that are loaded already.
    pub(crate) reward_models: &'a RewardModels,
    /// What templates that ask for the date are told.
    pub(crate) now: NaiveDateTime,
}

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    /// Its name, for people.
    pub(crate) path: &'a Path,
    /// Its files.
    pub(crate) checkpoint: &'a Checkpoint,
    /// The saved adapter that is trained on, if one is.
    pub(crate) adapter: Option<&'a Path>,
    /// Where it will compute.
    pub(crate) device: &'a Device,
}

/// Gives a decoder its number format and its adapter.
pub(crate) type Dress<'a> = Box<dyn FnOnce(Decoder) -> Result<Decoder> + 'a>;

/// What a trainer will be given.
#[derive(Debug)]
pub(crate) struct Lesson<'a, E> {
    /// Steps in all.
    pub(crate) steps: u64,
    /// All examples, in parts; of a stream those that are known beforehand.
    pub(crate) examples: &'a [&'a [E]],
    /// The order of the rows of the first part, where it is known beforehand; in a dry run they come at once, as they stand.
    pub(crate) order: Option<ShuffledBatches>,
    /// Where what is computed beforehand is kept; nowhere in a dry run.
    pub(crate) cache: Option<&'a Path>,
    /// What it may work with.
    pub(crate) kit: Kit<'a>,
}

/// Names of measurements, and values.
pub(crate) type Measured = Vec<(String, f64)>;

/// Makes examples of a record.
pub(crate) type Tokenize<'a, M> =
    Box<dyn Fn(&Located<<M as Method>::Record>) -> Result<Tokenized<<M as Method>::Example>> + 'a>;

/// The settings of a method.
pub(crate) trait Settings:
    Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned
{
    /// The name of their table in a run file.
    const NAME: &'static str;
    /// What comes out.
    const MODEL: ModelKind = ModelKind::Language;
    /// Where it is told what is good.
    const LEARNS_FROM: LearnsFrom = LearnsFrom::Data;
    /// The setting that limits how long sequences are.
    const LENGTH: &'static str = "max_length";

    /// Checks the relations between them.
    fn check(&self) -> Result<()>;

    /// Checks their relations to the rest of the run file.
    fn check_around(&self, _around: Around) -> Result<()> {
        Ok(())
    }

    /// What all methods have.
    fn plan(&self) -> Plan;
}

/// What a run file says besides the settings of its method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    /// Whether there is an `[adapter]`.
    pub(crate) has_adapter: bool,
    /// Whether the data are streamed.
    pub(crate) is_streamed: bool,
}

/// What kind of model a method trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelKind {
    /// One that writes.
    Language,
    /// One that scores.
    Reward,
}

/// Where a method is told what is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LearnsFrom {
    /// The data say it.
    Data,
    /// The data are prompts, and rewards score what the model makes of them.
    Rewards,
    /// The same, and a critic learns what to expect.
    RewardsAndValues,
    /// Another model says what it would, of completions of the data or of such as are written during the run.
    Teacher,
}

impl LearnsFrom {
    /// Whether there are rewards.
    pub(crate) const fn has_rewards(self) -> bool {
        matches!(self, Self::Rewards | Self::RewardsAndValues)
    }

    /// Whether completions are written during the run.
    pub(crate) const fn writes(self) -> bool {
        self.has_rewards() || matches!(self, Self::Teacher)
    }
}

/// The settings that all methods have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    /// How long the run is.
    pub(crate) duration: Duration,
    /// Rows a step.
    pub(crate) batch_size: NonZeroUsize,
    /// Sequences a forward pass.
    pub(crate) micro_batch_size: NonZeroUsize,
    /// Sequences that a row becomes: 1, unless completions are sampled.
    pub(crate) samples: NonZeroUsize,
    /// Tokens of an example, at most; of prompts, those of a completion.
    pub(crate) max_length: NonZeroUsize,
    /// How examples are packed into rows, if they are.
    pub(crate) packing: Option<Packing>,
    /// What is computed twice to save memory.
    pub(crate) recompute: Recompute,
    /// The highest learning rate.
    pub(crate) learning_rate: f64,
    /// Seed of the order of rows.
    pub(crate) seed: u64,
}

impl Plan {
    /// Forward passes a step.
    pub(crate) fn passes(&self) -> usize {
        (self.batch_size.get() * self.samples.get()).div_ceil(self.micro_batch_size.get())
    }

    /// Rows whose sequences fill a forward pass.
    pub(crate) fn rows_per_pass(&self) -> usize {
        self.micro_batch_size.get().div_ceil(self.samples.get())
    }

    /// Where a fixed number of steps is asked for, that number.
    pub(crate) fn fixed_steps(&self) -> Option<NonZeroU64> {
        if let Duration::Steps(steps) = self.duration { Some(steps) } else { None }
    }
}

/// What texts become tokens by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a> {
    /// The model's tokenizer.
    pub(crate) tokenizer: &'a Tokenizer,
    /// Its chat templates; `None` where the model came without.
    pub(crate) templates: Option<&'a ChatTemplates>,
    /// What templates that ask for the date are told.
    pub(crate) now: NaiveDateTime,
    /// Names of the sources of the data, where measurements are wanted for each.
    pub(crate) slices: &'a [String],
    /// Tokens that the model can read.
    pub(crate) context: usize,
}
