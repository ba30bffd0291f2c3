//! Ctrl-C: once to end with a checkpoint, twice to end at once.

use align_model::train::StopSignal;
use anyhow::{Context as _, Result};

/// What a program returns that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// A run that ended because it was asked to.
#[derive(Debug)]
pub(crate) struct Interrupted {
    /// The last step made.
    pub(crate) step: u64,
    /// What continues it.
    pub(crate) advice: String,
}

impl std::error::Error for Interrupted {}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped after step {}: {}", self.step, self.advice)
    }
}

/// A signal that Ctrl-C gives from now on.
pub(crate) fn stop_signal() -> Result<StopSignal> {
    let signal = StopSignal::new();
    let given = signal.clone();
    ctrlc::set_handler(move || {
        if given.is_requested() {
            std::process::exit(EXIT_CODE.into());
        }
        given.request();
        eprintln!("\nthe run ends after this step, with a checkpoint; Ctrl-C again ends it at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(signal)
}
