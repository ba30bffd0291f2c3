//! `align quickstart`: a model from nothing in minutes.

use anyhow::Result;

use crate::{
    args::QuickstartArguments,
    quickstart::{self, Options},
};

/// Trains the model.
pub(crate) fn run(args: &QuickstartArguments) -> Result<()> {
    quickstart::run(&Options { out: args.out.clone(), seed: args.seed, device: args.device })
}
