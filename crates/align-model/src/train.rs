//! Training: one optimiser step at a time, and the loop around it for those who want one.
//!
//! A trainer implements [`Step`]; [`fit`] drives it over batches and shows every report to [`Hook`]s. Nothing else is
//! shared between trainers but the arithmetic of an update, [`Updates`].

pub mod adamw;
pub mod clip;
mod fit;
pub mod record;
pub mod schedule;
mod update;

pub use adamw::{AdamW, AdamWConfig, AdamWError, AdamWState, ParameterState, WeightDecayOn};
pub use clip::{clip_gradient_norm, gradient_norm};
pub use fit::{FitError, Flow, Hook, HookError, Progress, Report, Step, fit};
pub use record::JsonlRecorder;
pub use schedule::{Curve, Floor, Schedule, ScheduleError, Span};
pub use update::{Update, UpdateConfig, UpdateError, Updates};
