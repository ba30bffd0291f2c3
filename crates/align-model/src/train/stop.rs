//! Asking a run from outside to end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Asks a run to end after the step that it is making, with a checkpoint: what Ctrl-C is turned into. Clones are one
/// signal.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// A signal that nobody has given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives it. May be called from a signal handler's thread.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was given.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<Arc<AtomicBool>> for StopSignal {
    /// A flag that something else sets.
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}
