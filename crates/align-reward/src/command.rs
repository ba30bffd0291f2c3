//! Programs that judge completions, such as the unit tests of generated code.
//!
//! # Safety of the machine
//! What a model wrote is run. The program gets an empty directory, an empty environment but for what the
//! configuration says, a group of processes of its own that is killed as a whole, and limits on time, memory, file
//! sizes and output. That keeps accidents in bounds; it is no sandbox: files and network of the user who trains stay
//! within reach. Run the trainer in a container if the completions may be hostile.

#[cfg(all(feature = "command", unix))]
mod process;
#[cfg(all(feature = "command", unix))]
mod reward;

use std::collections::BTreeMap;

use align_model::number::Positive;
#[cfg(all(feature = "command", unix))]
pub use reward::CommandReward;
use serde::{Deserialize, Serialize};

use crate::rules::AnswerFormat;

/// Which program judges, and within which limits.
///
/// ```
/// use align_reward::command::CommandConfig;
///
/// let config: CommandConfig = serde_json::from_str(r#"{
///     "program": ["python3", "tests.py"],
///     "completion_file": "solution.py",
///     "answer": {"extract": "code_block"},
///     "files": {"tests.py": "tests"}
/// }"#)?;
/// assert_eq!(config.timeout_seconds.get(), 10.0);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// The program and its arguments; no shell is involved. It runs in a new, empty directory.
    pub program: Vec<String>,
    /// How the part of the completion is found that the program gets; by default all of it. Where it is not found the
    /// score is 0.
    #[serde(default)]
    pub answer: AnswerFormat,
    /// The file, in the program's directory, that holds the completion; standard input holds it too.
    #[serde(default = "completion_file")]
    pub completion_file: String,
    /// Further files, by name, each with the column that it is written from; where a row has no such column it is
    /// unscored.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The program's environment; nothing is inherited. By default a `PATH` of the usual directories.
    #[serde(default = "environment")]
    pub environment: BTreeMap<String, String>,
    /// What decides the score.
    #[serde(default)]
    pub verdict: CommandVerdict,
    /// How long the program may run; beyond, the score is 0.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: Positive,
    /// How much address space each of its processes may have, in MiB; allocations beyond fail.
    #[serde(default = "memory_mebibytes")]
    pub memory_mebibytes: u64,
    /// How large a file each of its processes may write, in MiB.
    #[serde(default = "file_mebibytes")]
    pub file_mebibytes: u64,
    /// How much of its output is kept, in bytes; what comes after is thrown away.
    #[serde(default = "output_bytes")]
    pub output_bytes: usize,
    /// How many programs run at the same time.
    #[serde(default = "parallel")]
    pub parallel: std::num::NonZeroUsize,
}

/// What decides the score of a program that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandVerdict {
    /// 1 if the exit status is 0, else 0.
    #[default]
    ExitStatus,
    /// The number on the last line of standard output that is not empty, if the exit status is 0; otherwise, or where
    /// that line is no number, the rollout is unscored.
    LastLine,
}

fn completion_file() -> String {
    "completion.txt".into()
}

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())])
}

fn timeout_seconds() -> Positive {
    Positive::new(10.0)
}

fn memory_mebibytes() -> u64 {
    1024
}

fn file_mebibytes() -> u64 {
    16
}

fn output_bytes() -> usize {
    64 << 10
}

fn parallel() -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::MIN
}
