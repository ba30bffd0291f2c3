//! Runs that are watched, stopped, killed and resumed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

mod early_stopping;
mod evaluation;
mod failures;
mod fine_tuning;
#[cfg(unix)]
mod killed;
mod resuming;
mod streaming;
mod toy;
