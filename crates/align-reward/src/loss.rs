//! What reward models minimise: pure functions of scores, one term an example.
//!
//! None of them knows a model, a batch or a reduction: trainers divide by the number of examples of a whole step, so that
//! cutting it into passes changes nothing.

mod pairwise;
mod process;
mod ranking;
mod rating;

pub use pairwise::{bradley_terry_loss, centering_loss};
pub use process::{class_loss, soft_class_loss};
pub use ranking::plackett_luce_loss;
pub use rating::{binary_cross_entropy_loss, cumulative_logit_loss, squared_error_loss};
