//! Adapters: what they compute, how they train, and how they lie on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail

mod algebra;
mod bad_files;
mod files;
mod heads;
mod models;
mod quantized;
mod selecting;
mod training;
mod whole;
