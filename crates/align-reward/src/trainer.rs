//! Training reward models: on pairs, rankings, ratings and grades of responses, and on judged steps of solutions.

mod config;
mod error;
mod evaluate;
mod example;
mod objective;
mod process;
mod report;
mod reward;
mod scoring;

pub use config::{Margins, RatingLoss, RewardConfig, RewardConfigError, RewardObjective};
pub use error::RewardTrainingError;
pub use evaluate::{PairEvaluation, evaluate_pairs};
pub use example::{GradedExample, RankedExample, RatedExample};
pub use process::{
    LabelOn, ProcessConfig, ProcessExample, ProcessLeftOut, ProcessReport, ProcessTokenizer, ProcessTrainer,
    StepAggregation, StepLabel, StepTarget,
};
pub use report::{RewardReport, SliceReport};
pub use reward::RewardTrainer;
