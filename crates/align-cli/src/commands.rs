//! The subcommands.

pub(crate) mod chat;
pub(crate) mod data;
pub(crate) mod generate;
pub(crate) mod quickstart;
pub(crate) mod rollouts;
