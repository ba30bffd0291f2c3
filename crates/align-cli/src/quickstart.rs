//! A model from nothing in minutes.

use std::path::PathBuf;

use align_model::device::DeviceName;

/// What the user chose.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where everything is written.
    pub(crate) out: PathBuf,
    /// Seed of the data and of the training.
    pub(crate) seed: u64,
    /// Where to compute.
    pub(crate) device: DeviceName,
}

/// Trains the model.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    anyhow::bail!(
        "nothing to train in {} with seed {} on {}",
        options.out.display(),
        options.seed,
        options.device
    )
}
