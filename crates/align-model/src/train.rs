//! Training: one optimiser step at a time, and the loop around it for those who want one.
//!
//! A trainer implements [`Step`]; [`fit`] drives it over batches and shows every report to [`Hook`]s. A [`TrainingLoop`]
//! does the same for runs that are saved, resumed and stopped: its trainer is [`Resumable`](crate::checkpoint::Resumable)
//! as well. Nothing else is shared between trainers but the arithmetic of an update, [`Updates`].
//!
//! Hooks are called in the order in which they stand, and each sees the metrics that those before it added: evaluation
//! comes first, then what looks at its numbers, recorders last.

pub mod adamw;
pub mod clip;
mod early_stopping;
mod ema;
mod evaluation;
mod fit;
mod hook;
mod json_lines;
mod metrics;
mod parameters;
pub mod record;
mod samples;
pub mod schedule;
mod stop;
mod tracking;
mod training_loop;
mod update;

pub use adamw::{AdamW, AdamWConfig, AdamWError, AdamWState, ParameterState, WeightDecayOn};
pub use clip::{clip_gradient_norm, gradient_norm};
pub use early_stopping::{EarlyStopping, EarlyStoppingConfig};
pub use ema::{Averaged, Ema, EmaConfig, EmaWarmup};
pub use evaluation::{Evaluation, EvaluationConfig};
pub use fit::fit;
pub use hook::{Failure, FitError, Flow, Hook, HookError, Progress, Report, Step, StepEvent, Trains};
pub use metrics::Metrics;
pub use parameters::{fingerprint_of, restore_trained, save_trained};
pub use record::{JsonlRecorder, Recorder, Recording};
pub use samples::{GeneratedSample, SamplesConfig, SamplesDuringTraining};
pub use schedule::{Curve, Floor, Schedule, ScheduleError, Span};
pub use stop::StopSignal;
pub use training_loop::{Ending, Outcome, Resumed, TrainingLoop};
pub use update::{Update, UpdateConfig, UpdateError, Updates};
