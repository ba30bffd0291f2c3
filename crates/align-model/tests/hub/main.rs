//! Models and datasets of a Hub that runs on this machine and fails when it is told to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail

mod datasets;
mod faults;
mod models;
mod refusals;
mod server;
mod workplace;
