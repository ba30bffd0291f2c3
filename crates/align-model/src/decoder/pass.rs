//! What every layer of a pass is told.

use crate::causal_lm::{DropoutSeed, PassOptions};

/// The part of [`PassOptions`] that layers act on; the default is that of scoring and generation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pass {
    /// Where dropout masks come from; without one nothing is dropped.
    pub(super) dropout: Option<DropoutSeed>,
}

impl From<PassOptions> for Pass {
    fn from(options: PassOptions) -> Self {
        Self { dropout: options.dropout }
    }
}
