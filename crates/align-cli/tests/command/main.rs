//! The `align` command as its users run it, with a model small enough to train in a second.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod chat;
mod data;
mod distill;
mod generate;
mod hub;
mod mistakes;
mod preferences;
mod rewards;
mod runs;
mod sft;
mod streaming;
mod workplace;
