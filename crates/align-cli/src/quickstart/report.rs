//! What a person reads afterwards: a table on the terminal and a page for the browser.

mod chart;
mod page;
mod summary;

pub(super) use page::write_page;
pub(super) use summary::write_summary;

use super::evaluation::Proportion;
use super::results::{StageResults, percent};
use super::world::TaskKind;

/// A line of the table that compares the stages.
struct Line {
    label: String,
    /// Whether it is a part of the line above it.
    part: bool,
    cells: Vec<Cell>,
}

/// What one stage has in a line.
struct Cell {
    value: String,
    /// How sure the value is.
    interval: Option<String>,
    /// The value from 0 to 1, where it is a share.
    share: Option<f64>,
}

/// The comparison of the stages, the most telling number first.
fn lines(stages: &[StageResults]) -> Vec<Line> {
    let shares = |label: &str, part: bool, of: &dyn Fn(&StageResults) -> Proportion| Line {
        label: label.to_owned(),
        part,
        cells: stages.iter().map(|stage| share_cell(of(stage))).collect(),
    };
    let numbers = |label: &str, of: &dyn Fn(&StageResults) -> f64| Line {
        label: label.to_owned(),
        part: false,
        cells: stages.iter().map(|stage| number_cell(of(stage))).collect(),
    };
    let mut lines = vec![shares("right answers", false, &|stage| stage.evaluation.accuracy)];
    lines.extend(TaskKind::ALL.into_iter().map(|kind| {
        shares(kind.description(), true, &|stage| stage.evaluation.accuracy_by_kind[kind.name()])
    }));
    lines.push(shares("answers that end by themselves", false, &|stage| stage.evaluation.ended));
    lines.push(numbers("nats per token of the right answer", &|stage| stage.evaluation.answer_nll));
    lines.push(numbers("perplexity of the right answer", &|stage| stage.evaluation.answer_perplexity));
    lines
}

fn share_cell(proportion: Proportion) -> Cell {
    let Proportion { share, low, high, .. } = proportion;
    let interval = format!("{:.1} – {:.1}", 100.0 * low, 100.0 * high);
    Cell { value: percent(share), interval: Some(interval), share: Some(share) }
}

fn number_cell(value: f64) -> Cell {
    let value = if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") };
    Cell { value, interval: None, share: None }
}
