//! Checkpoint directories: whole or not there, damage found, the right ones kept.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at what they did not expect")]

mod damage;
mod failing_disk;
mod identity;
mod retention;
mod round_trip;
mod workplace;
