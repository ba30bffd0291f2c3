//! What `align rollouts` can be told.

use std::{num::NonZeroUsize, path::PathBuf};

use align_rl::rollout::{OfGroup, RolloutOrder, RolloutSelection};
use clap::{Args, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  align rollouts show runs/grpo --step 40
  align rollouts show runs/grpo --best --worst --limit 6     # what a reward liked and what it did not, prompt by prompt
  align rollouts show runs/grpo --sort lowest --limit 3
  align rollouts show runs/grpo --step 40 --json | jq .completion";

/// Looks at what a model wrote while it learnt from rewards.
///
/// `align grpo` and `align ppo` keep every completion that they learn from, with its scores, in `rollouts.jsonl` in their
/// output directory.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct RolloutsArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: RolloutsCommand,
}

/// The subcommands; each is described at its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutsCommand {
    Show(ShowArguments),
}

/// Prints completions with what they were an answer to and what they got for it.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct ShowArguments {
    /// The output directory of a run, or a file of rollouts.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Those of one step only.
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Of every prompt's completions the one with the highest reward.
    #[arg(long)]
    best: bool,
    /// Of every prompt's completions the one with the lowest reward.
    #[arg(long)]
    worst: bool,
    /// In which order; as they were written unless given.
    #[arg(long, value_name = "ORDER")]
    sort: Option<Order>,
    /// So many at most.
    #[arg(long, value_name = "N", default_value = "20")]
    limit: NonZeroUsize,
    /// Prints a JSON object a completion.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// The highest reward first.
    Reward,
    /// The lowest reward first.
    Lowest,
}

impl ShowArguments {
    /// Which rollouts are shown, and in which order.
    pub(crate) fn selection(&self) -> RolloutSelection {
        RolloutSelection {
            step: self.step,
            of_group: match (self.best, self.worst) {
                (false, false) => OfGroup::All,
                (true, false) => OfGroup::Best,
                (false, true) => OfGroup::Worst,
                (true, true) => OfGroup::BestAndWorst,
            },
            order: match self.sort {
                None => RolloutOrder::AsWritten,
                Some(Order::Reward) => RolloutOrder::HighestReward,
                Some(Order::Lowest) => RolloutOrder::LowestReward,
            },
            limit: Some(self.limit),
        }
    }
}
