//! The `align` command: fine-tunes language models, generates and talks.
//!
//! Every subcommand reads its arguments and files, checks them before anything expensive begins, and calls the
//! libraries; what it prints and what time it is are this program's business alone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]

mod args;
mod commands;
mod dataset;
mod files;
mod hub;
mod method;
mod model;
mod page;
mod prompts;
mod quickstart;
mod run_file;
mod training;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};
use method::{
    distill::Distill, dpo::Dpo, grpo::Grpo, kto::Kto, online::Online, ppo::Ppo, raft::Raft, reward::Reward,
    sft::Sft,
};
use training::interrupt::{EXIT_CODE, Interrupted};

/// The CPU backend allocates with every operation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Sft(args) => training::command::run::<Sft>(&args),
        Command::Dpo(args) => training::command::run::<Dpo>(&args),
        Command::Kto(args) => training::command::run::<Kto>(&args),
        Command::Reward(args) => training::command::run::<Reward>(&args),
        Command::Grpo(args) => training::command::run::<Grpo>(&args),
        Command::Ppo(args) => training::command::run::<Ppo>(&args),
        Command::Online(args) => training::command::run::<Online>(&args),
        Command::Raft(args) => training::command::run::<Raft>(&args),
        Command::Distill(args) => training::command::run::<Distill>(&args),
        Command::Rollouts(args) => commands::rollouts::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Data(args) => commands::data::run(&args),
        Command::Quickstart(args) => commands::quickstart::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CODE)
        }
        Err(error) => {
            eprintln!("{}", explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and what it is because of, one a line.
fn explained(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(|cause| format!("\n  because: {cause}"));
    format!("error: {error}{}", causes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_says_why() {
        let error =
            anyhow::Result::<()>::Err(anyhow::anyhow!("no such file")).context("cannot read x").unwrap_err();
        assert_eq!(explained(&error), "error: cannot read x\n  because: no such file");
    }
}
