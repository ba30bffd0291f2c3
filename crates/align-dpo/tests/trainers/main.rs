//! The trainers, on a small model: what must not change a result, what is refused, what goes on after a break.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

mod beta;
mod online;
mod pairs;
mod references;
mod settings;
mod triples;
mod unpaired;
mod world;
