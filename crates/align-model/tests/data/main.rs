//! Data files of every format, alone and mixed, in memory and streamed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // a test may fail, and says why it skips

mod files;
mod formats;
mod hh_rlhf;
mod mixtures;
mod order;
mod sources;
