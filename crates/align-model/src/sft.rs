//! Supervised fine-tuning: maximum likelihood of demonstrations.

mod config;
mod evaluate;
mod loss;
mod packing;
mod tokenize;
mod trainer;

pub use config::{Duration, LossOn, SftConfig, SftConfigError, SftLoss, Truncation};
pub use evaluate::{EvaluationError, EvaluationReport, evaluate};
pub use loss::{dft_loss, nll_loss, smoothed_nll_loss};
pub use packing::{Fragment, Packing, SftRow, rows};
pub use tokenize::{SftDataError, SftOutcome, SftRecordError, SftSamples, SftTokenizer, WholeSample};
pub use trainer::{SftError, SftExample, SftReport, SftTrainer};
