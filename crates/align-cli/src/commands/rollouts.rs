//! `align rollouts`: looking at what a model wrote while it learnt from rewards.

use std::io::Write as _;

use align_rl::rollout::{RolloutRow, RolloutSelection, read_rollouts};
use anyhow::{Context as _, Result, ensure};

use crate::{
    args::{RolloutsArguments, RolloutsCommand, ShowArguments},
    training::directory::ROLLOUTS,
};

/// Does what was asked.
pub(crate) fn run(args: &RolloutsArguments) -> Result<()> {
    match &args.command {
        RolloutsCommand::Show(args) => show(args),
    }
}

fn show(args: &ShowArguments) -> Result<()> {
    let path = if args.out.is_dir() { args.out.join(ROLLOUTS) } else { args.out.clone() };
    let shown = path.display();
    ensure!(
        path.exists(),
        "{shown} is not there: `align grpo` and `align ppo` write it into their output directory"
    );
    let rows: Vec<RolloutRow> = read_rollouts(&path)?.collect::<Result<_, _>>()?;
    ensure!(!rows.is_empty(), "{shown} has no rollouts yet");
    let (selection, last) = (args.selection(), rows.iter().map(|row| row.step).max().unwrap_or(0));
    let found = RolloutSelection { limit: None, ..selection }.apply(rows);
    let limit = selection.limit.map_or(usize::MAX, std::num::NonZeroUsize::get);
    ensure!(!found.is_empty(), "{shown} has no such rollouts: its last step is {last}");
    let mut out = std::io::stdout().lock();
    for row in found.iter().take(limit) {
        let line = if args.json { serde_json::to_string(row)? + "\n" } else { format!("{row}\n") };
        out.write_all(line.as_bytes()).context("cannot print")?;
    }
    if found.len() > limit && !args.json {
        writeln!(out, "{} more: --limit N shows them", found.len() - limit).context("cannot print")?;
    }
    Ok(())
}
