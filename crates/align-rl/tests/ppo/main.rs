//! PPO on a small random model.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test that cannot go on has failed"
)]

mod bad_input;
mod critic;
mod gradients;
mod learning;
mod process;
mod resume;
mod world;
