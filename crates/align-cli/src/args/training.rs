//! What a training command can be told.

use std::path::PathBuf;

use align_model::device::DeviceName;
use clap::Args;

use crate::{
    run_file::Override,
    training::{directory::Entry, dry_run::Depth},
};

/// Of `align sft`.
pub(super) const SFT_EXAMPLES: &str = "\
Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"  # Hugging Face directory, GGUF file, or owner/name of the Hub
  data = \"examples/data/plain_answers.jsonl\"        # a record a line: prompt and completion, messages, or text;
                                                    # or owner/name, owner/name:split of a data set of the Hub
  out = \"runs/plain-answers\"                        # the model, metrics.jsonl and run.toml are written here
  device = \"flex\"                                   # flex, vulkan, metal, wgpu, cuda, rocm; cuda:1 is the second

  [sft]                                             # every key and table from here on may be left out
  duration = { epochs = 3.0 }                       # or { steps = 20 }
  batch_size = 8
  max_length = 512
  update.learning_rate = 2e-5

  [adapter]                                         # trains a LoRA adapter instead of the whole model
  rank = 16                                         # or from = \"DIR\" to train a saved one on
  targets = \"all-linear\"

  [evaluation]                                      # needs data = { train = \"…\", evaluation = \"…\" },
  every = 100                                       # or data = { train = \"…\", evaluation_share = 0.05 }

  [checkpoints]
  every = 500
  keep_best = { metric = \"eval_loss\" }

  [samples]                                         # what the model writes while it learns
  prompts = [\"Why is the sky blue?\"]
  every = 100

  [save]
  dtype = \"float32\"                                 # or bfloat16, float16
  form = \"adapter\"                                  # or merged, or both, where there is an [adapter]

examples/configs/ has run files with every key explained.

Examples:
  align sft --config examples/configs/sft_smollm2.toml
  align sft --config run.toml --set sft.update.learning_rate=1e-4 --set sft.duration='{ steps = 50 }'
  align sft --config run.toml --out runs/second --set sft.seed=7
  align sft --config run.toml --dry-run             # what it would do and what stands in its way
  align sft --config run.toml --resume              # goes on where it was interrupted";

/// Of `align dpo`.
pub(super) const DPO_EXAMPLES: &str = "\
Data:
  A record has `prompt`, `chosen` and `rejected`, or `chosen` and `rejected` that begin with the same prompt; texts or lists
  of messages. With transcript = \"anthropic\" they are hh-rlhf's.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"
  out = \"runs/dpo\"
  data = { train = \"pairs.jsonl\", evaluation_share = 0.1 }

  [dpo]                                             # every key and table from here on may be left out
  objective = { kind = \"dpo\", beta = 0.1, losses = [{ loss = { kind = \"sigmoid\" } }] }
                                                    # or { kind = \"reference_free\", loss = { kind = \"orpo\" } }
  reference = { kind = \"adapter_off\" }             # or frozen, precomputed, moving, averaged
  duration = { epochs = 1.0 }                       # or { steps = 200 }
  batch_size = 8
  max_length = 512
  update.learning_rate = 1e-6

  Everything else, [adapter], [evaluation], [checkpoints], [samples], [save] and so on, is as for align sft.

Examples:
  align dpo --config examples/configs/dpo_hh_rlhf.toml --dry-run
  align dpo --config examples/configs/dpo_hh_rlhf.toml --set dpo.objective.beta=0.5
  align dpo --config run.toml --resume";

/// Of `align kto`.
pub(super) const KTO_EXAMPLES: &str = "\
Data:
  A record has `prompt`, `completion` and `label` (true: desirable); or it is a pair with `chosen` and `rejected`, which is
  taken as a desirable completion and an undesirable one.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"
  data = \"judged.jsonl\"
  out = \"runs/kto\"

  [kto]                                             # every key and table from here on may be left out
  loss = { kind = \"kto\" }
  beta = 0.1
  reference = { kind = \"frozen\" }                  # or adapter_off, moving, averaged
  duration = { epochs = 1.0 }                       # or { steps = 200 }
  batch_size = 8
  update.learning_rate = 1e-6

  Everything else, [adapter], [evaluation], [checkpoints], [samples], [save] and so on, is as for align sft.

Examples:
  align kto --config examples/configs/kto_hh_rlhf.toml --dry-run
  align kto --config run.toml --resume";

/// Of `align reward`.
pub(super) const REWARD_EXAMPLES: &str = "\
Data:
  Pairs, as for align dpo; a column `margin` says by how much the chosen completion is better. Pairs that are longer than
  reward.max_length are left out, because a sequence that is cut has another last token, which is what is scored.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\" # a language model, which gets a fresh head, or a reward model
  data = { train = \"pairs.jsonl\", evaluation_share = 0.1 }
  out = \"runs/reward\"                             # transformers' AutoModelForSequenceClassification loads it

  [reward]                                          # every key and table from here on may be left out
  objective = { kind = \"pairs\", center_rewards_coefficient = 0.01 }
  duration = { epochs = 1.0 }                       # or { steps = 200 }
  batch_size = 8
  max_length = 512
  update.learning_rate = 1e-4

  Everything else, [adapter], [evaluation], [checkpoints], [save] and so on, is as for align sft. An adapter is merged into
  what is saved.

Examples:
  align reward --config examples/configs/reward_hh_rlhf.toml --dry-run
  align reward --config run.toml --resume";

/// Of `align grpo`.
pub(super) const GRPO_EXAMPLES: &str = "\
Data:
  A record has `prompt`, a text or a list of messages; every other column is there for rewards, such as a right answer.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"
  data = { train = \"prompts.jsonl\", evaluation_share = 0.1 }
  out = \"runs/grpo\"

  [[rewards]]                                       # several are added up, each times its weight
  kind = \"exact_match\"                            # numeric, math, regex, json_schema, command, http, …
  truth = { column = \"answer\" }

  [[rewards]]
  kind = \"model\"                                  # a reward model
  path = \"runs/reward\"
  weight = 0.5

  [grpo]                                            # every key and table from here on may be left out
  algorithm = \"dapo\"                              # grpo, dr_grpo, gspo, cispo, rloo, reinforce_plus_plus, …
  rollout = { samples = 8, max_new_tokens = 256 }   # completions of a prompt, and how they are sampled
  batch_size = 8                                    # prompts a step
  micro_batch_size = 8                              # completions a forward pass
  duration = { steps = 200 }                        # or { epochs = 1.0 }
  update.learning_rate = 1e-6

  [evaluation]                                      # held-out prompts, a completion of each: mean reward and its margin
  every = 20

  Everything else, [adapter], [checkpoints], [samples], [save] and so on, is as for align sft.

docs/rl.md explains the algorithms and everything that is measured.

Examples:
  align grpo --config examples/configs/grpo_smollm2.toml --dry-run    # first prompts, completions and their rewards
  align grpo --config examples/configs/grpo_smollm2.toml
  align grpo --config run.toml --set grpo.algorithm=gspo --out runs/gspo
  align rollouts show runs/grpo --best --worst --limit 6
  align grpo --config run.toml --resume";

/// Of `align ppo`.
pub(super) const PPO_EXAMPLES: &str = "\
Data:
  A record has `prompt`, a text or a list of messages; every other column is there for rewards, such as a right answer.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"
  data = { train = \"prompts.jsonl\", evaluation_share = 0.1 }
  out = \"runs/ppo\"

  [[rewards]]                                       # as for align grpo
  kind = \"model\"
  path = \"runs/reward\"

  [critic]                                          # may be left out: the critic then begins as the model that is trained
  kind = \"reward_model\"                           # or shared: a head on the model that is trained
  from = \"runs/reward\"

  [ppo]                                             # every key and table from here on may be left out
  kl = { kind = \"per_token\", coefficient = 0.05 }  # the divergence from the reference in the reward
  rollout = { samples = 1, max_new_tokens = 256 }
  batch_size = 64                                   # prompts a step
  micro_batch_size = 8                              # completions a forward pass
  epochs = 4
  lambda = 0.95
  duration = { steps = 200 }
  update.learning_rate = 1e-6
  critic_update.learning_rate = 1e-5

  Everything else, [adapter], [evaluation], [checkpoints], [samples], [save] and so on, is as for align grpo.

docs/rl.md explains the settings and everything that is measured.

Examples:
  align ppo --config run.toml --dry-run
  align ppo --config run.toml
  align rollouts show runs/ppo --sort lowest --limit 3
  align ppo --config run.toml --resume";

/// Of `align online`.
pub(super) const ONLINE_EXAMPLES: &str = "\
Data:
  A record has `prompt`, a text or a list of messages; every other column is there for rewards, such as a right answer.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"
  data = { train = \"prompts.jsonl\", evaluation_share = 0.1 }
  out = \"runs/online\"

  [[rewards]]                                       # as for align grpo; the completion with more of them wins
  kind = \"model\"
  path = \"runs/reward\"

  [online]                                          # every key and table from here on may be left out
  objective = { kind = \"online_dpo\", beta = 0.1 }   # or { kind = \"xpo\", alpha = 1e-5 },
                                                    # or { kind = \"nash_md\", mixture_coefficient = 0.5 }
  reference = { kind = \"frozen\" }                   # or adapter_off, moving, averaged
  rollout = { samples = 2, max_new_tokens = 64 }    # completions of a prompt, which make half as many pairs
  batch_size = 8                                    # prompts a step
  micro_batch_size = 8                              # pairs a forward pass
  duration = { steps = 200 }                        # or { epochs = 3.0 }
  update.learning_rate = 5e-7

  [evaluation]                                      # held-out prompts: mean reward, and how often the model wins against
  every = 20                                        # its reference

  Everything else, [adapter], [checkpoints], [samples], [save], [gold] and so on, is as for align grpo.

docs/rl.md explains the settings and everything that is measured.

Examples:
  align online --config examples/configs/online_dpo_smollm2.toml --dry-run
  align online --config examples/configs/online_dpo_smollm2.toml
  align online --config run.toml --set online.objective='{ kind = \"nash_md\" }' --out runs/nash
  align rollouts show runs/online --best --worst --limit 6
  align online --config run.toml --resume";

/// Of `align raft`.
pub(super) const RAFT_EXAMPLES: &str = "\
Data:
  A record has `prompt`, a text or a list of messages; every other column is there for rewards, such as a right answer.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"
  data = { train = \"prompts.jsonl\", evaluation_share = 0.1 }
  out = \"runs/raft\"

  [[rewards]]                                       # as for align grpo
  kind = \"exact_match\"
  truth = { column = \"answer\" }

  [raft]                                            # every key and table from here on may be left out
  keep = { kind = \"best_of_group\", count = 1 }      # or { kind = \"at_least\", score = 1.0 }
  truncated = \"keep\"                                # or leave_out: those without an end are not imitated
  rollout = { samples = 8, max_new_tokens = 256 }   # completions of a prompt, and how they are sampled
  batch_size = 8                                    # prompts a step
  micro_batch_size = 8                              # completions a forward pass
  duration = { steps = 200 }                        # or { epochs = 1.0 }
  update.learning_rate = 2e-5

  [evaluation]                                      # held-out prompts, a completion of each: mean reward and its margin
  every = 20

  Everything else, [adapter], [checkpoints], [samples], [save] and so on, is as for align grpo.

Examples:
  align raft --config run.toml --dry-run
  align raft --config run.toml --set raft.keep='{ kind = \"at_least\", score = 1.0 }'
  align rollouts show runs/raft --best --worst --limit 6
  align raft --config run.toml --resume";

/// Of `align distill`.
pub(super) const DISTILL_EXAMPLES: &str = "\
Data:
  A record has `prompt`, a text or a list of messages. Where steps learn from completions of the data, it has `completion`
  as well, or `messages`, of which the assistant's last one is the completion.

Run file:
  model = \"models/SmolLM2-135M-Instruct.Q4_1.gguf\"  # the student
  data = { train = \"prompts.jsonl\", evaluation_share = 0.1 }
  out = \"runs/distill\"

  [teacher]
  path = \"models/SmolLM2-360M-Instruct\"             # Hugging Face directory, GGUF file, or owner/name of the Hub
  adapter = \"runs/teacher\"                          # a PEFT adapter on it, if there is one

  [distill]                                         # every key and table from here on may be left out
  objective = { kind = \"divergence\", divergence = { kind = \"jensen_shannon\", beta = 0.5 } }
                                                    # or reverse_kl, forward_kl; or { kind = \"policy_gradient\" }
  on_policy = 0.5                                   # share of the steps whose completions the student writes: 1 needs
                                                    # nothing but prompts
  off_policy = \"data\"                               # who writes the others: data or teacher
  rollout = { samples = 1, max_new_tokens = 128 }   # completions are no longer than this, whoever wrote them
  batch_size = 8                                    # prompts a step
  micro_batch_size = 8                              # completions a forward pass
  duration = { steps = 200 }                        # or { epochs = 3.0 }
  update.learning_rate = 2e-5

  [evaluation]                                      # held-out prompts: the divergence from the teacher, on completions of
  every = 20                                        # the data if steps learn from them, else on what the student writes

  Everything else, [adapter], [checkpoints], [samples], [save] and so on, is as for align sft.

docs/rl.md explains the settings and everything that is measured.

Examples:
  align distill --config examples/configs/distill_smollm2.toml --dry-run
  align distill --config examples/configs/distill_smollm2.toml
  align distill --config run.toml --set distill.on_policy=1 --out runs/on-policy
  align rollouts show runs/distill --sort lowest --limit 3
  align distill --config run.toml --resume";

/// Which run, and what to do about it.
#[derive(Debug, Args)]
pub(crate) struct TrainingArguments {
    /// The run file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Replaces a value of the run file, by its dotted key. The value is TOML; what is not valid TOML is taken as text.
    /// May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Replaces `model`.
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    /// Replaces `data.train`, or `data` where it has no parts.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Replaces `out`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replaces `device`.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<DeviceName>,
    /// Writes into an output directory that is not empty. Files of an earlier run in it are removed first, others stay.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite: bool,
    /// Goes on with the run in the output directory, from its newest intact checkpoint. The result has the same bits as
    /// that of a run that was never interrupted.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Trains nothing: says what the run would do, how long it would take and everything that stands in its way. `fast`
    /// does not try out a step.
    #[arg(long, value_name = "DEPTH", num_args = 0..=1, require_equals = true, default_missing_value = "full")]
    pub(crate) dry_run: Option<Depth>,
}

impl TrainingArguments {
    /// What to do about a run that is in the output directory already.
    pub(crate) fn entry(&self) -> Entry {
        match (self.resume, self.overwrite) {
            (true, _) => Entry::Resume,
            (_, true) => Entry::Overwrite,
            _ => Entry::New,
        }
    }

    /// Everything that replaces a value of the run file, in the order in which it does.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let paths = [("model", &self.model), ("data.train", &self.data), ("out", &self.out)];
        let paths =
            paths.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?.display().to_string())));
        let device = self.device.map(|device| ("device", device.to_string()));
        let own = paths.chain(device).map(|(key, text)| Override::text(key, &text));
        self.overrides.iter().cloned().chain(own).collect()
    }
}
