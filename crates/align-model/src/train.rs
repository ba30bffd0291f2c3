//! Training: optimiser, learning-rate schedules, gradient clipping.

pub mod adamw;
pub mod clip;
pub mod schedule;

pub use adamw::{AdamW, AdamWConfig, AdamWError, AdamWState, ParameterState, WeightDecayOn};
pub use clip::{clip_gradient_norm, gradient_norm};
pub use schedule::{Curve, Floor, Schedule, ScheduleError, Span};
