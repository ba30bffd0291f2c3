//! Supervised fine-tuning: maximum likelihood of demonstrations.

mod config;
mod loss;
mod tokenize;
mod trainer;

pub use config::{Duration, LossOn, SftConfig, SftConfigError, SftLoss, Truncation};
pub use loss::{dft_loss, nll_loss, smoothed_nll_loss};
pub use tokenize::{SftDataError, SftOutcome, SftRecordError, SftSamples, SftTokenizer};
pub use trainer::{SftError, SftExample, SftReport, SftTrainer};
