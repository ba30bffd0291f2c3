//! The trainer without a critic, on a small model.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests, of which some are about equal bits")]

mod bad_input;
mod constraints;
mod evaluation;
mod resume;
mod updates;
mod watching;
mod world;
