//! Online preference learning and distillation on a small model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test should say so")]
#![allow(clippy::float_cmp, reason = "counts and shares of few things are exact")]

mod distillation;
mod divergences;
mod mixture;
mod preferences;
mod rejection;
mod world;
