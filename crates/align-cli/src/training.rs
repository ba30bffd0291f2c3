//! What every training command does around its steps: checks, progress, records, samples, checkpoints, the result.

pub(crate) mod command;
pub(crate) mod directory;
pub(crate) mod dry_run;
pub(crate) mod event_file;
pub(crate) mod findings;
pub(crate) mod history;
pub(crate) mod interrupt;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod rollouts;
pub(crate) mod samples;
pub(crate) mod session;
pub(crate) mod watch;
