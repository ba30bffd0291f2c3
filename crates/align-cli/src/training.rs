//! What every training command does around its steps: checks, progress, records, samples, checkpoints, the result.

pub(crate) mod event_file;
pub(crate) mod history;
pub(crate) mod machine;
pub(crate) mod report;
