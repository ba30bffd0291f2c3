//! `align sft`: supervised fine-tuning.

mod batches;
mod data;
mod dry_run;
mod learner;
mod portrait;
mod prepare;
mod publish;
mod stream;
mod train;

use anyhow::Result;

use crate::{
    args::SftArguments,
    run_file::{self, SftRun},
    training::{directory::Entry, findings::Findings},
};
use prepare::Prepared;

/// Trains a model and writes it, or says what would happen.
pub(crate) fn run(args: &SftArguments) -> Result<()> {
    let run: SftRun = run_file::read(&args.config, &args.overrides())?;
    let entry = args.entry();
    let mut findings = Findings::default();
    let prepared = Prepared::new(run.resolve(entry == Entry::Resume), entry, &mut findings);
    if let Some(depth) = args.dry_run {
        return dry_run::dry_run(prepared.as_ref(), findings, depth);
    }
    let warnings = findings.into_result()?;
    match prepared {
        Some(prepared) => train::train(&prepared, &warnings),
        None => unreachable!("what could not be prepared is a problem, and problems end the run before"),
    }
}
