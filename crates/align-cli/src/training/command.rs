//! A training command of any method: from its run file to the model that it writes, or what would happen.

mod batches;
mod data;
mod portrait;
mod prepare;
mod preview;
mod publish;
mod stream;
mod train;

use anyhow::Result;

use super::{directory::Entry, findings::Findings};
use crate::{
    args::TrainingArguments,
    method::Method,
    run_file::{self, Run},
};
use prepare::Prepared;

/// Trains a model and writes it, or says what would happen.
pub(crate) fn run<M: Method>(args: &TrainingArguments) -> Result<()> {
    let run: Run<M::Config> = run_file::read(&args.config, &args.overrides())?;
    let entry = args.entry();
    let mut findings = Findings::default();
    let prepared = Prepared::<M>::new(run.resolve(entry == Entry::Resume), entry, &mut findings);
    if let Some(depth) = args.dry_run {
        return preview::preview(prepared.as_ref(), findings, depth);
    }
    let warnings = findings.into_result()?;
    match prepared {
        Some(prepared) => train::train(&prepared, &warnings),
        None => unreachable!("what could not be prepared is a problem, and problems end the run before"),
    }
}
