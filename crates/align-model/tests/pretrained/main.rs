//! Models on disk: what is saved loads again, and what is wrong is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail

mod bad_configs;
mod bad_weights;
mod configs;
mod layouts;
mod models;
mod round_trips;
mod saving;
