//! What a person reads afterwards: a table on the terminal and a page for the browser.

mod page;
mod summary;

pub(super) use page::write_page;
pub(super) use summary::write_summary;

use align_model::number::Proportion;
use serde::Serialize;

use super::evaluation::Interval;
use super::results::{StageResults, percent};
use super::scores::Gain;
use super::world::TaskKind;

/// A line of the table that compares the stages.
struct Line {
    label: &'static str,
    rank: Rank,
    cells: Vec<Cell>,
}

/// How much a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Rank {
    /// Enough to tell the stages apart on its own.
    Headline,
    /// Something for the second look.
    Detail,
    /// A part of the line before it.
    Part,
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
    let shares = |label, rank, of: &dyn Fn(&StageResults) -> Proportion| Line {
        label,
        rank,
        cells: stages.iter().map(|stage| share_cell(of(stage))).collect(),
    };
    let numbers = |label, rank, of: &dyn Fn(&StageResults) -> f64| Line {
        label,
        rank,
        cells: stages.iter().map(|stage| number_cell(of(stage))).collect(),
    };
    let mut lines = vec![shares("right answers", Rank::Headline, &|stage| stage.evaluation.accuracy)];
    lines.extend(TaskKind::ALL.into_iter().map(|kind| {
        let accuracy = |stage: &StageResults| stage.evaluation.accuracy_by_kind[kind.name()];
        shares(kind.description(), Rank::Part, &accuracy)
    }));
    lines.extend([
        shares("right answers, kindly put", Rank::Headline, &|stage| stage.evaluation.kind),
        shares("better of two answers is likelier", Rank::Headline, &|stage| stage.evaluation.preferred),
        shares("answers that end by themselves", Rank::Headline, &|stage| stage.evaluation.ended),
        numbers("nats per token of the right answer", Rank::Detail, &|stage| stage.evaluation.answer_nll),
        numbers("perplexity of the right answer", Rank::Headline, &|stage| {
            stage.evaluation.answer_perplexity
        }),
    ]);
    lines
}

fn share_cell(proportion: Proportion) -> Cell {
    let Proportion { share, low, high, .. } = proportion;
    let interval = format!("{:.1} – {:.1}", 100.0 * low, 100.0 * high);
    Cell { value: percent(share), interval: Some(interval), share: Some(share) }
}

/// What stages that learnt from scores gained.
fn gains(stages: &[StageResults]) -> impl Iterator<Item = (&StageResults, &Gain)> {
    stages.iter().filter_map(|stage| Some((stage, stage.gain.as_ref()?)))
}

fn mean_cell(interval: Interval) -> Cell {
    let Interval { mean, low, high, .. } = interval;
    Cell { value: format!("{mean:.2}"), interval: Some(format!("{low:.2} – {high:.2}")), share: None }
}

fn number_cell(value: f64) -> Cell {
    let value = if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") };
    Cell { value, interval: None, share: None }
}
