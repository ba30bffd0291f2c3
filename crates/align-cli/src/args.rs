//! What can be said on the command line.

mod data;
mod rollouts;
mod training;

use std::{num::NonZeroUsize, path::PathBuf};

use align_model::{
    device::DeviceName,
    generate::{Decoding, GenerationConfig, Sampling, SamplingConfig, StopAt},
    number::{Positive, PositiveUnit, UnitInterval},
};
use clap::{Args, Parser, Subcommand};

pub(crate) use data::{DataArguments, DataCommand, InspectArguments, METHODS};
pub(crate) use rollouts::{RolloutsArguments, RolloutsCommand, ShowArguments};
pub(crate) use training::TrainingArguments;

/// Aligns language models: fine-tunes them, lets them write, talks to them.
///
/// A model is a Hugging Face directory (config.json, safetensors, tokenizer.json), a GGUF file with its tokenizer
/// inside, or a model of the Hugging Face Hub by its name: owner/name, owner/name@revision, owner/name:file.gguf. What
/// exists here is never looked for on the Hub. Everything runs on this machine; the Hub is asked for downloads alone, at
/// `HF_ENDPOINT`, as `HF_TOKEN`, into `HF_HUB_CACHE`, and not at all where `HF_HUB_OFFLINE` is 1.
#[derive(Debug, Parser)]
#[command(name = "align", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands; each is described at its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fine-tunes a model on demonstrations.
    ///
    /// The run is described by a TOML file; paths in it are relative to the current directory. Everything is checked
    /// before training begins. The output directory receives, while the run lasts, `run.toml` (the run with every default
    /// written out), `metrics.jsonl` (a line a step), `timing.jsonl`, `tensorboard/`, checkpoints, `samples.jsonl` where
    /// samples are asked for, and `report.html`; and the trained model with its tokenizer, or its adapter, when training is
    /// over. Ctrl-C ends a run with a checkpoint, a second one at once; `--resume` goes on.
    #[command(after_long_help = training::SFT_EXAMPLES)]
    Sft(TrainingArguments),
    /// Trains a model on pairs: the chosen completion is made more likely than the rejected one.
    ///
    /// DPO with its many losses, and ORPO, CPO and `SimPO`, which need no reference model. The run file, what it leaves in
    /// the output directory, dry runs and resuming are as with `align sft`.
    #[command(after_long_help = training::DPO_EXAMPLES)]
    Dpo(TrainingArguments),
    /// Trains a model on completions of which each is judged by itself: desirable or not.
    ///
    /// KTO, APO-zero and BCO. The run file, what it leaves in the output directory, dry runs and resuming are as with
    /// `align sft`.
    #[command(after_long_help = training::KTO_EXAMPLES)]
    Kto(TrainingArguments),
    /// Trains a reward model on pairs: it scores the chosen completion higher than the rejected one.
    ///
    /// A language model's head is replaced by one that gives a score; the result is a sequence classifier. The run file,
    /// what it leaves in the output directory, dry runs and resuming are as with `align sft`.
    #[command(after_long_help = training::REWARD_EXAMPLES)]
    Reward(TrainingArguments),
    /// Trains a model on its own completions: the better ones of each prompt are made more likely than the others.
    ///
    /// GRPO, Dr.GRPO, DAPO, GSPO, CISPO, RLOO, REINFORCE++ and their relatives, which compare completions of one prompt and
    /// need no critic. The data are prompts; `[[rewards]]` of the run file score what the model makes of them, and
    /// `rollouts.jsonl` in the output directory keeps it (`align rollouts show`). The run file, what else it leaves in the
    /// output directory, dry runs and resuming are as with `align sft`.
    #[command(after_long_help = training::GRPO_EXAMPLES)]
    Grpo(TrainingArguments),
    /// Trains a model on its own completions by PPO, with a critic that learns what to expect of each token.
    ///
    /// The data are prompts; `[[rewards]]` of the run file, such as a reward model, score what the model makes of them, and
    /// `rollouts.jsonl` in the output directory keeps it (`align rollouts show`). The run file, what else it leaves in the
    /// output directory, dry runs and resuming are as with `align sft`.
    #[command(after_long_help = training::PPO_EXAMPLES)]
    Ppo(TrainingArguments),
    /// Trains a model on duels of its own completions: the better of two is made more likely than the other.
    ///
    /// Online DPO, where the model meets itself, XPO, where it meets its reference, and Nash-MD, where it meets a mixture of
    /// both. The data are prompts; `[[rewards]]` of the run file say which of two completions is better, and `rollouts.jsonl`
    /// in the output directory keeps them (`align rollouts show`). The run file, what else it leaves in the output directory,
    /// dry runs and resuming are as with `align sft`.
    #[command(after_long_help = training::ONLINE_EXAMPLES)]
    Online(TrainingArguments),
    /// Trains a model on the best of its own completions: rejection sampling, RAFT.
    ///
    /// The data are prompts; `[[rewards]]` of the run file score what the model makes of them, the best are imitated, and
    /// `rollouts.jsonl` in the output directory keeps all (`align rollouts show`). The run file, what else it leaves in the
    /// output directory, dry runs and resuming are as with `align sft`.
    #[command(after_long_help = training::RAFT_EXAMPLES)]
    Raft(TrainingArguments),
    /// Trains a model to say what another one would: distillation.
    ///
    /// A student comes closer to its teacher, on completions of its own (on-policy distillation), on those of the data, on
    /// both (GKD), or on the teacher's. The data are prompts, with completions where steps learn from them; `[teacher]` of
    /// the run file names the other model, which needs the same tokenizer. What is written during the run is kept in
    /// `rollouts.jsonl` (`align rollouts show`). The run file, what else it leaves in the output directory, dry runs and
    /// resuming are as with `align sft`.
    #[command(after_long_help = training::DISTILL_EXAMPLES)]
    Distill(TrainingArguments),
    Rollouts(RolloutsArguments),
    Generate(GenerateArguments),
    Chat(ChatArguments),
    Data(DataArguments),
    Quickstart(QuickstartArguments),
}

/// Which model, and where it computes.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// A Hugging Face directory, a GGUF file, or a model of the Hub such as HuggingFaceTB/SmolLM2-135M-Instruct.
    #[arg(long, value_name = "PATH|NAME")]
    pub(crate) model: PathBuf,
    /// A PEFT adapter to put on the model.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// Where to compute: flex (the CPU), vulkan, metal, wgpu, cuda or rocm, with an optional index such as cuda:1.
    #[arg(long, value_name = "NAME", default_value = "flex")]
    pub(crate) device: DeviceName,
}

/// How text is generated.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArguments {
    /// Tokens an answer, at most.
    #[arg(long, value_name = "N", default_value = "256")]
    max_new_tokens: NonZeroUsize,
    /// Always takes the most likely token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Divides the logits: below 1 for the likely, above 1 for the surprising.
    #[arg(long, value_name = "T", default_value = "1", value_parser = number::<Positive>)]
    temperature: Positive,
    /// Draws from the N most likely tokens only.
    #[arg(long, value_name = "N")]
    top_k: Option<NonZeroUsize>,
    /// Draws from the fewest tokens that have this much probability together.
    #[arg(long, value_name = "P", value_parser = number::<PositiveUnit>)]
    top_p: Option<PositiveUnit>,
    /// Draws from tokens with at least this share of the most likely one's probability.
    #[arg(long, value_name = "P", value_parser = number::<UnitInterval>)]
    min_p: Option<UnitInterval>,
    /// Makes tokens that occurred less likely, above 1.
    #[arg(long, value_name = "X", default_value = "1", value_parser = number::<Positive>)]
    repetition_penalty: Positive,
    /// Ends an answer before this text. May be repeated. The model's own end tokens end it in any case.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Seed of the sampling; the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl GenerationArguments {
    /// The settings, for a model with these end tokens.
    pub(crate) fn config(&self, end_tokens: Vec<u32>, samples: NonZeroUsize) -> GenerationConfig {
        let decoding = if self.greedy {
            Decoding::Greedy
        } else {
            let (temperature, top_k, top_p, min_p) = (self.temperature, self.top_k, self.top_p, self.min_p);
            Decoding::Sample(Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() })
        };
        let repetition_penalty = self.repetition_penalty;
        GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            sampling: SamplingConfig { decoding, repetition_penalty, ..SamplingConfig::default() },
            samples,
            stop: StopAt { tokens: end_tokens, strings: self.stop.clone() },
            seed: self.seed,
            ..GenerationConfig::default()
        }
    }
}

/// A number that has to lie in a range.
fn number<T: TryFrom<f64, Error: ToString>>(text: &str) -> Result<T, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    T::try_from(value).map_err(|error| error.to_string())
}

const GENERATE_EXAMPLES: &str = "\
Prompts:
  A line of a prompts file, or of the standard input where no prompt is given, is a prompt. A line that begins
  with { is a JSON object with `prompt` (a text or a list of messages) or `messages`; any other is plain text.

Examples:
  align generate --model runs/plain-answers --prompt 'Why is the sky blue?' --greedy
  align generate --model model.gguf --prompts prompts.jsonl --json > answers.jsonl
  align generate --model openai-community/gpt2 --raw --prompt 'Once upon a time' --samples 4 --top-p 0.9 --seed 7
  echo 'Name three rivers.' | align generate --model runs/plain-answers";

/// Continues prompts or answers requests.
///
/// A prompt is put to the model as a request in its chat template; with --raw, or where the model has no template, the
/// model continues the text as it stands. A single answer appears on a terminal word by word.
#[derive(Debug, Args)]
#[command(after_long_help = GENERATE_EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// A prompt. May be repeated.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompts")]
    pub(crate) prompt: Vec<String>,
    /// A file of prompts, one a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Continues the text itself, without the chat template.
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    /// A system message before every prompt.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Answers to every prompt.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) samples: NonZeroUsize,
    /// Prints a JSON object an answer: prompt, sample, text, tokens, `log_probs`, finish.
    #[arg(long)]
    pub(crate) json: bool,
    /// Prints every token with its log-probability under the distribution that it was drawn from.
    #[arg(long, conflicts_with = "json")]
    pub(crate) log_probs: bool,
    #[command(flatten)]
    pub(crate) generation: GenerationArguments,
}

const CHAT_EXAMPLES: &str = "\
While talking:
  /reset         forgets the conversation, keeps the system message
  /system TEXT   begins anew with this system message; without TEXT, with none
  /save FILE     appends the conversation to FILE as a JSON line that `align sft` can train on
  /help          lists these commands
  /exit          ends, as the end of the input (Ctrl-D) does

Examples:
  align chat --model runs/plain-answers --temperature 0.7
  align chat --model HuggingFaceTB/SmolLM2-135M-Instruct
  align chat --model model.gguf --system 'Answer in one sentence.' --greedy
  printf 'Hello!\\n/save talk.jsonl\\n' | align chat --model runs/plain-answers";

/// Talks with a model.
///
/// Every line is a message to the model, whose answer appears word by word; the model needs a chat template. Ctrl-C ends
/// an answer and, where the model is silent, the conversation.
#[derive(Debug, Args)]
#[command(after_long_help = CHAT_EXAMPLES)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// What the model is told before the conversation begins.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) generation: GenerationArguments,
}

/// Trains a small model from nothing, in minutes.
///
/// It reads text, learns to answer, and learns to answer better: from pairs of answers, from a reward model that learns to
/// tell them apart, and from a reward that can be checked. The data is made on the spot; nothing is downloaded.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArguments {
    /// Where everything is written.
    #[arg(long, value_name = "DIR", default_value = "quickstart-out")]
    pub(crate) out: PathBuf,
    /// Seed of the data and of the training.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where to compute: flex (the CPU), vulkan, metal, wgpu, cuda or rocm, with an optional index such as cuda:1.
    #[arg(long, value_name = "NAME", default_value = "flex")]
    pub(crate) device: DeviceName,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_subcommand_is_described_at_length() {
        let command = Arguments::command();
        for subcommand in command.get_subcommands() {
            let (name, about) = (subcommand.get_name(), subcommand.get_about().map(ToString::to_string));
            let long = subcommand.get_long_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.is_some_and(|about| long.len() > about.len()), "{name}: {long}");
        }
    }

    #[test]
    fn the_flags_win_over_set() {
        let arguments =
            ["align", "sft", "--config", "x.toml", "--model", "a", "--set", "model=b", "--device", "cuda:1"];
        let Command::Sft(sft) = Arguments::try_parse_from(arguments).unwrap().command else { unreachable!() };
        let overrides: Vec<String> = sft.overrides().iter().map(ToString::to_string).collect();
        assert_eq!(overrides, ["model=\"b\"", "model=\"a\"", "device=\"cuda:1\""]);
    }
}
