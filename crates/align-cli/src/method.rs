//! What tells one way of training from another; everything around it is the same for all.

pub(crate) mod dpo;
pub(crate) mod kto;
mod preference;
pub(crate) mod reward;
pub(crate) mod sft;

use std::{
    fmt,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
};

use align_model::{
    causal_lm::{Recompute, TokenBatch},
    chat::ChatTemplates,
    checkpoint::Resumable,
    data::{Located, Record},
    decoder::Decoder,
    pretrained::{Checkpoint, SaveOptions},
    sft::{Duration, Packing},
    tokenizer::Tokenizer,
    train::{Averaged, Step, Trains},
};
use anyhow::Result;
use burn::{module::Module, tensor::Device};
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::training::report::Fact;

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
    type Model: Module + fmt::Debug;
    /// Who trains it.
    type Trainer: Step<[Self::Row]> + Trains<Model = Self::Model> + Resumable + fmt::Debug;

    /// How records become examples.
    fn tokenize<'a>(config: &'a Self::Config, texts: Texts<'a>) -> Tokenize<'a, Self>;

    /// The rows of these examples.
    fn rows(config: &Self::Config, examples: &[Self::Example]) -> Vec<Self::Row>;

    /// Tokens of a row.
    fn tokens(row: &Self::Row) -> usize;

    /// What a forward pass reads of some rows, and how many targets it has.
    fn pass(rows: &[&Self::Row]) -> (TokenBatch, usize);

    /// The model to train; `dress` gives its decoder the number format and the adapter of the run.
    fn load(config: &Self::Config, start: Start<'_>, dress: Dress<'_>) -> Result<Self::Model>;

    /// The decoder of a model.
    fn decoder(model: &Self::Model) -> &Decoder;

    /// Copies of what is trained that are kept besides it, such as a reference.
    fn copies(_config: &Self::Config) -> usize {
        0
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
    ) -> Result<Measured>;

    /// Writes a model.
    fn save(model: &Self::Model, base: &Checkpoint, place: &Path, options: SaveOptions) -> Result<()>;

    /// Writes a model's adapter.
    fn save_adapter(model: &Self::Model, place: &Path, base: &str) -> Result<()>;

    /// A model whose weights have taken its adapter in.
    fn merge(model: Self::Model) -> Result<Self::Model>;

    /// What the report tells of the settings.
    fn facts(config: &Self::Config) -> Vec<Fact>;
}

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    /// Its name, for people.
    pub(crate) path: &'a Path,
    /// Its files.
    pub(crate) checkpoint: &'a Checkpoint,
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
    /// Where what is computed beforehand is kept; nowhere in a dry run.
    pub(crate) cache: Option<&'a Path>,
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

/// The settings that all methods have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    /// How long the run is.
    pub(crate) duration: Duration,
    /// Rows a step.
    pub(crate) batch_size: NonZeroUsize,
    /// Rows a forward pass.
    pub(crate) micro_batch_size: NonZeroUsize,
    /// Tokens of an example, at most.
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
        self.batch_size.get().div_ceil(self.micro_batch_size.get())
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
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tokenized<E> {
    /// Those with something to learn.
    pub(crate) examples: Vec<E>,
    /// Tokens of each sequence before it was cut.
    pub(crate) lengths: Vec<usize>,
    /// What is worth a second look.
    pub(crate) notes: Vec<Note>,
}

/// What may be noteworthy about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    /// It was cut.
    Truncated,
    /// It is left out: no token carries a loss.
    WithoutLoss,
    /// It is left out: it prefers a completion to itself.
    IdenticalPair,
    /// It is left out: a completion says nothing.
    EmptyCompletion,
    /// It is left out: it is longer than allowed.
    TooLong,
    /// It is left out: its prompt alone is as long as allowed.
    NothingLeft,
    /// Its prompt ends inside a token of the whole.
    UnevenBoundary,
}

impl Note {
    /// What happened to so many, for people; `settings` is the name of the table of settings.
    pub(crate) fn said(self, settings: &str) -> String {
        match self {
            Self::Truncated => format!("samples were longer than {settings}.max_length and cut"),
            Self::WithoutLoss => "samples have no token to learn and are left out".into(),
            Self::IdenticalPair => "pairs prefer a completion to itself and are left out".into(),
            Self::EmptyCompletion => "samples have an empty completion and are left out".into(),
            Self::NothingLeft => {
                format!("prompts leave nothing of {settings}.max_length to a completion and are left out")
            }
            Self::TooLong => format!("samples are longer than {settings}.max_length and are left out"),
            Self::UnevenBoundary => "prompts end inside a token of the whole sample".into(),
        }
    }

    /// Whether it means that nothing is learnt of the record: where it stands is then worth knowing.
    pub(crate) fn leaves_out(self) -> bool {
        !matches!(self, Self::Truncated | Self::UnevenBoundary)
    }
}

/// A record in tokens.
pub(crate) trait Example: Clone + fmt::Debug {
    /// What several of them are called.
    const PLURAL: &'static str;

    /// All that there is of it, in the order in which it is read.
    fn parts(&self) -> Vec<Part<'_>>;

    /// What it says besides its tokens.
    fn label(&self) -> Option<String> {
        None
    }
}

/// Some of an example's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// What it is; nothing where there is no other.
    pub(crate) name: &'static str,
    /// The tokens.
    pub(crate) tokens: &'a [u32],
    /// Which of them are learnt.
    pub(crate) learnt: Learnt<'a>,
}

/// Which tokens are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt<'a> {
    /// None of them: they are given.
    None,
    /// All of them.
    All,
    /// Those that are marked.
    Marked(&'a [bool]),
}

impl Part<'_> {
    /// Whether each token is learnt.
    pub(crate) fn marks(&self) -> Vec<bool> {
        match self.learnt {
            Learnt::None => vec![false; self.tokens.len()],
            Learnt::All => vec![true; self.tokens.len()],
            Learnt::Marked(marks) => marks.to_vec(),
        }
    }

    /// How many tokens are learnt.
    pub(crate) fn learnt(&self) -> usize {
        match self.learnt {
            Learnt::None => 0,
            Learnt::All => self.tokens.len(),
            // Nothing comes before a first token: it is never predicted.
            Learnt::Marked(marks) => marks.iter().skip(1).filter(|mark| **mark).count(),
        }
    }
}
