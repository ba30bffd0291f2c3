//! Rollouts and episodes of a small random model that reads and writes a handful of letters.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

mod episodes;
mod prompts;
mod world;
