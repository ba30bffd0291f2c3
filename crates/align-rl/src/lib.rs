//! Learning from scores: rollouts, advantages, policy objectives and their trainers.

mod trajectory;

pub use trajectory::{Trajectory, prompted};
