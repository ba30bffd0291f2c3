//! What `align data` can be told.

use std::{num::NonZeroUsize, path::PathBuf};

use align_model::{inspect::InspectConfig, number::PositiveUnit};
use clap::{Args, Subcommand};

use super::number;
use crate::run_file::Override;

/// Looks at data before anything is trained on it.
///
/// Nothing is written and no weights are loaded.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct DataArguments {
    /// What to do with the data.
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// What can be done with data.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    Inspect(InspectArguments),
}

/// The methods whose data can be inspected, as a run file names their tables.
pub(crate) const METHODS: [&str; 9] =
    ["sft", "dpo", "kto", "reward", "grpo", "ppo", "online", "raft", "distill"];

const INSPECT_EXAMPLES: &str = "\
What is looked for:
  layouts, unused columns, rows that cannot be trained on; odd conversations (no assistant, a role twice in a row,
  empty messages); lengths; with a tokenizer also what `sft.max_length` cuts, what carries no loss, prompts that end
  inside a token, how full packed rows would be, and some samples with what is learnt marked; records that are equal
  or nearly equal (MinHash over runs of 5 words); evaluation records that are equal, nearly equal or contained in the
  training data (runs of --ngram words; shorter records as a whole, down to 8 words).
  Of other methods than fine-tuning: lengths of prompts and completions, what is left out or cut and where it stands,
  judgements that contradict each other, batches with one kind of judgement alone, and samples as the method reads them.

Examples:
  align data inspect --data train.jsonl
  align data inspect --data train.jsonl --evaluation test.jsonl --model models/SmolLM2-135M-Instruct.Q4_1.gguf
  align data inspect --config run.toml --set sft.max_length=2048 --samples 10
  align data inspect --config dpo.toml --strict
  align data inspect --method kto --data judged.jsonl --model models/SmolLM2-135M-Instruct.Q4_1.gguf
  align data inspect --config run.toml --evaluation test.jsonl --json --strict > report.json";

/// Says what is in data files, and what is likely to be a mistake.
///
/// With a model or a run file the data is tokenised as training would; without, only texts are looked at.
#[derive(Debug, Args)]
#[command(after_long_help = INSPECT_EXAMPLES)]
pub(crate) struct InspectArguments {
    /// A file of training records. May be repeated. Replaces `data` of a run file.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    pub(crate) data: Vec<PathBuf>,
    /// A file of evaluation records, or of any JSON objects with texts in them: what they have in common with the
    /// training records is reported. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) evaluation: Vec<PathBuf>,
    /// A Hugging Face directory or a GGUF file, for its tokenizer and chat template. Replaces `model` of a run file.
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    /// A run file: the data is read as its method reads it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The method that reads the data. The run file's, if there is one; else `sft`.
    #[arg(long, value_name = "METHOD", value_parser = METHODS, conflicts_with = "config")]
    pub(crate) method: Option<String>,
    /// Replaces a value of the run file, or of its defaults where there is none, by its dotted key. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Samples to show.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) samples: usize,
    /// From this Jaccard similarity on records are near-duplicates.
    #[arg(long, value_name = "X", default_value = "0.8", value_parser = number::<PositiveUnit>)]
    pub(crate) similarity: PositiveUnit,
    /// Words of the runs by which evaluation records are looked for in the training data.
    #[arg(long, value_name = "N", default_value = "13")]
    pub(crate) ngram: NonZeroUsize,
    /// Seed of the hash functions that find near-duplicates.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Prints everything as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Fails if anything is found that is likely to be a mistake.
    #[arg(long)]
    pub(crate) strict: bool,
}

impl InspectArguments {
    /// What the inspection asks.
    pub(crate) fn config(&self) -> InspectConfig {
        InspectConfig {
            similarity: self.similarity,
            ngram_words: self.ngram,
            samples: self.samples,
            seed: self.seed,
            ..InspectConfig::default()
        }
    }
}
