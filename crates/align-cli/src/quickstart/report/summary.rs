//! The table on the terminal.

use std::io::{Result, Write};
use std::path::Path;

use super::super::results::Results;
use super::{Cell, Rank, gains, lines, mean_cell, share_cell};

const LABEL_WIDTH: usize = 36;
const CELL_WIDTH: usize = 24;

/// Prints what improved and where everything lies.
pub(in super::super) fn write_summary(output: &mut dyn Write, results: &Results, out: &Path) -> Result<()> {
    write!(output, "{:LABEL_WIDTH$}", format!("{} held-out requests", results.held_out.len()))?;
    for stage in &results.stages {
        write!(output, "{:>CELL_WIDTH$}", stage.name)?;
    }
    writeln!(output)?;
    for line in lines(&results.stages) {
        let indent = if line.rank == Rank::Part { "  " } else { "" };
        write!(output, "{:LABEL_WIDTH$}", format!("{indent}{}", line.label))?;
        for cell in line.cells {
            write!(output, "{:>CELL_WIDTH$}", text(cell))?;
        }
        writeln!(output)?;
    }
    if let Some(reward) = &results.reward {
        let label = "pairs that the reward model ranks right";
        writeln!(output, "{label:LABEL_WIDTH$} {}", text(share_cell(reward.accuracy)))?;
    }
    if let Some(duel) = &results.duel {
        let label = format!("better answers after than before, of {}", duel.wins.total);
        writeln!(output, "{label:LABEL_WIDTH$} {}", text(share_cell(duel.wins)))?;
    }
    for (stage, gain) in gains(&results.stages) {
        let label = format!("{}: {}, sampled answers", stage.name, gain.reward);
        let (before, after) = (text(mean_cell(gain.before)), text(mean_cell(gain.after)));
        writeln!(output, "{label:LABEL_WIDTH$} {before} → {after}")?;
    }
    let show = |name: &str| out.join(name).display().to_string();
    writeln!(output, "\nIn brackets: 95 % intervals. {:.0} s in all.\n", results.timing.total_seconds)?;
    writeln!(output, "report   {}", show("report.html"))?;
    writeln!(output, "numbers  {}", show("results.json"))?;
    for stage in &results.stages {
        writeln!(output, "model    {}", show(stage.name))?;
    }
    Ok(())
}

fn text(cell: Cell) -> String {
    match cell.interval {
        Some(interval) => format!("{} ({interval})", cell.value),
        None => cell.value,
    }
}
