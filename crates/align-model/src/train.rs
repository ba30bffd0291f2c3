//! Training: one optimiser step at a time, and the loop around it for those who want one.
//!
//! A trainer implements [`Step`]; [`fit`] drives it over batches and shows every report to [`Hook`]s. A [`TrainingLoop`]
//! does the same for runs that are saved, resumed and stopped: its trainer is [`Resumable`](crate::checkpoint::Resumable)
//! as well. Nothing else is shared between trainers but the arithmetic of an update, [`Updates`].
//!
//! Hooks are called in the order in which they stand, and each sees the metrics that those before it added: evaluation
//! comes first, then what looks at its numbers, recorders last.
//!
//! # Example
//! A fine-tuning run that may be killed at any time and goes on where it was when it is started again:
//! ```no_run
//! use align_model::{
//!     checkpoint::{CheckpointConfig, CheckpointStore, Fingerprint, RunIdentity},
//!     data::ShuffledBatches,
//!     decoder::Decoder,
//!     sft::{SftConfig, SftExample, SftTrainer, evaluate},
//!     train::{
//!         Averaged, EarlyStopping, EarlyStoppingConfig, Evaluation, EvaluationConfig, Hook, HookError, JsonlRecorder,
//!         Recording, StopSignal, TrainingLoop, fingerprint_of,
//!     },
//! };
//!
//! # fn f(
//! #     model: Decoder, samples: Vec<SftExample>, held_out: Vec<SftExample>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let config = SftConfig::default();
//! let steps = config.duration.steps(samples.len(), config.batch_size);
//! let (data, start) = (Fingerprint::of_json(&samples)?, fingerprint_of(&model)?);
//! let identity = RunIdentity::new(serde_json::to_value(&config)?, data, start);
//! let mut checkpoints =
//!     CheckpointStore::open("out/checkpoints".as_ref(), identity, CheckpointConfig::default())?;
//!
//! let mut trainer = Averaged::new(SftTrainer::new(model, &config, steps)?, None);
//! let mut evaluation = Evaluation::new(EvaluationConfig::default(), |trainer: &Averaged<SftTrainer<Decoder>>| {
//!     let report = evaluate(&trainer.result(), &held_out, config.loss, config.micro_batch_size);
//!     let report = report.map_err(|e| HookError { hook: "evaluation", reason: e.to_string() })?;
//!     Ok(report.metrics())
//! });
//! let mut early_stopping = EarlyStopping::new(EarlyStoppingConfig::default());
//! let mut metrics = JsonlRecorder::open("out/metrics.jsonl".as_ref())?;
//! let mut recording = Recording::new(vec![&mut metrics]);
//! let hooks: &mut [&mut dyn Hook<_, _>] = &mut [&mut evaluation, &mut early_stopping, &mut recording];
//!
//! let stop = StopSignal::new(); // given to whoever handles Ctrl-C
//! let mut run = TrainingLoop::new(steps).stopping_at(stop).with_checkpoints(&mut checkpoints);
//! let resumed = run.resume(&mut trainer, hooks)?;
//! println!("goes on after step {}", resumed.step);
//! let order = ShuffledBatches::new(samples.len(), config.batch_size.get(), config.seed);
//! let batches = order.map(|batch| batch.into_iter().map(|i| samples[i].clone()).collect::<Vec<_>>());
//! let outcome = run.run::<[SftExample]>(&mut trainer, batches, hooks)?;
//! println!("{:?} after step {}", outcome.ending, outcome.step);
//! # Ok(())
//! # }
//! ```

pub mod adamw;
pub mod clip;
mod early_stopping;
mod ema;
mod evaluation;
mod fit;
mod hook;
mod json_lines;
mod learner;
mod metrics;
mod parameters;
pub mod record;
mod reference;
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
pub use json_lines::JsonLines;
pub use learner::Learner;
pub use metrics::Metrics;
pub use parameters::{fingerprint_of, restore_trained, save_trained};
pub use record::{JsonlRecorder, Recorder, Recording};
pub use reference::{FollowPolicy, ReferenceModel};
pub use samples::{GeneratedSample, SamplesConfig, SamplesDuringTraining};
pub use schedule::{Curve, Floor, Schedule, ScheduleError, Span};
pub use stop::StopSignal;
pub use training_loop::{Ending, Outcome, Resumed, TrainingLoop};
pub use update::{Update, UpdateConfig, UpdateError, Updates};
