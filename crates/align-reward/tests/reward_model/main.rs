//! Reward models: trained, resumed, written and read, on small random decoders.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

mod errors;
mod files;
mod layouts;
mod process;
mod toy;
mod training;
