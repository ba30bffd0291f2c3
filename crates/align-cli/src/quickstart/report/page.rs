//! The page for the browser: one file that needs no other.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::super::{
    lesson::{Curve, TrainingRecord},
    preferences::RewardResults,
    results::{Results, StageResults, percent},
    world::TaskKind,
};
use super::{Cell, Line, Rank, gains, lines, mean_cell, share_cell};
use crate::page::{
    self,
    chart::{Baseline, LineChart, Series, Stroke},
    grouped,
};

/// Samples of each kind on the page.
const SAMPLES_PER_KIND: usize = 2;

/// Writes `report.html`.
pub(in super::super) fn write_page(results: &Results, out: &Path) -> anyhow::Result<()> {
    let view = PageView::new(results, out)?;
    page::write(&out.join("report.html"), include_str!("report.html.jinja"), &view)
}

/// What the template sees.
#[derive(Serialize)]
struct PageView<'a> {
    version: &'static str,
    seed: u64,
    device: &'a str,
    parameters: String,
    model: &'a serde_json::Value,
    held_out: usize,
    before: String,
    after: String,
    last_stage: &'static str,
    seconds: String,
    stages: Vec<StageView>,
    reward: Option<RewardView>,
    duel: Option<DuelView>,
    gains: Vec<GainView>,
    lines: Vec<LineView>,
    samples: Vec<Sample<'a>>,
    out: String,
}

impl<'a> PageView<'a> {
    fn new(results: &'a Results, out: &Path) -> anyhow::Result<Self> {
        let (first, last) = results.stages.first().zip(results.stages.last()).context("no stage has run")?;
        Ok(Self {
            version: results.version,
            seed: results.seed,
            device: &results.device,
            parameters: grouped(results.parameters as u64),
            model: &results.model,
            held_out: results.held_out.len(),
            before: percent(first.evaluation.accuracy.share),
            after: percent(last.evaluation.accuracy.share),
            last_stage: last.name,
            seconds: format!("{:.0}", results.timing.total_seconds),
            stages: results.stages.iter().map(StageView::new).collect::<anyhow::Result<_>>()?,
            reward: reward_view(results)?,
            duel: results.duel.map(|duel| DuelView {
                wins: CellView::new(share_cell(duel.wins)),
                decided: duel.wins.total,
                ties: duel.ties,
            }),
            gains: gains(&results.stages)
                .map(|(stage, gain)| GainView {
                    title: stage.title,
                    reward: gain.reward,
                    before: CellView::new(mean_cell(gain.before)),
                    after: CellView::new(mean_cell(gain.after)),
                })
                .collect(),
            lines: lines(&results.stages).into_iter().map(LineView::new).collect(),
            samples: samples(results),
            out: out.display().to_string(),
        })
    }
}

#[derive(Serialize)]
struct StageView {
    name: &'static str,
    title: &'static str,
    purpose: &'static str,
    run: RunView,
}

/// The numbers and curves of a training run.
#[derive(Serialize)]
struct RunView {
    steps: u64,
    batch_size: usize,
    learning_rate: f64,
    samples: String,
    tokens: String,
    final_loss: String,
    charts: Vec<String>,
}

impl RunView {
    fn new(training: &TrainingRecord) -> anyhow::Result<Self> {
        Ok(Self {
            steps: training.steps,
            batch_size: training.sizes.batch_size,
            learning_rate: training.sizes.learning_rate,
            samples: grouped(training.samples as u64),
            tokens: grouped(training.tokens),
            final_loss: format!("{:.3}", training.final_loss),
            charts: training.curves.iter().map(line_chart).collect::<anyhow::Result<_>>()?,
        })
    }
}

/// The model that scores answers.
#[derive(Serialize)]
struct RewardView {
    accuracy: CellView,
    /// Names of virtues and shares.
    virtues: Vec<(&'static str, CellView)>,
    run: RunView,
}

/// What a stage gained in the reward that it learnt from.
#[derive(Serialize)]
struct GainView {
    title: &'static str,
    reward: &'static str,
    before: CellView,
    after: CellView,
}

/// Two models' answers compared.
#[derive(Serialize)]
struct DuelView {
    wins: CellView,
    decided: usize,
    ties: usize,
}

fn reward_view(results: &Results) -> anyhow::Result<Option<RewardView>> {
    let view = |reward: &RewardResults| {
        let virtues = reward.accuracy_by_virtue.iter();
        Ok(RewardView {
            accuracy: CellView::new(share_cell(reward.accuracy)),
            virtues: virtues.map(|(name, share)| (*name, CellView::new(share_cell(*share)))).collect(),
            run: RunView::new(&reward.training)?,
        })
    };
    results.reward.as_ref().map(view).transpose()
}

impl StageView {
    fn new(stage: &StageResults) -> anyhow::Result<Self> {
        let training = &stage.training;
        Ok(Self {
            name: stage.name,
            title: stage.title,
            purpose: stage.purpose,
            run: RunView::new(training)?,
        })
    }
}

fn line_chart(curve: &Curve) -> anyhow::Result<String> {
    let series = vec![Series { points: &curve.points, stroke: Stroke::Trend }];
    let label = curve.name.replace('_', " ");
    LineChart { label: &label, baseline: Baseline::Zero, series }.svg()
}

#[derive(Serialize)]
struct LineView {
    label: &'static str,
    rank: Rank,
    cells: Vec<CellView>,
}

#[derive(Serialize)]
struct CellView {
    value: String,
    interval: Option<String>,
    percent: Option<f64>,
}

impl LineView {
    fn new(line: Line) -> Self {
        Self {
            label: line.label,
            rank: line.rank,
            cells: line.cells.into_iter().map(CellView::new).collect(),
        }
    }
}

impl CellView {
    fn new(Cell { value, interval, share }: Cell) -> Self {
        Self { value, interval, percent: share.map(|share| 100.0 * share) }
    }
}

#[derive(Serialize)]
struct Sample<'a> {
    request: &'a str,
    answer: &'a str,
    replies: Vec<Reply<'a>>,
}

#[derive(Serialize)]
struct Reply<'a> {
    text: &'a str,
    correct: bool,
    ended: bool,
}

/// The first requests of each kind, and what each stage's model replied.
fn samples(results: &Results) -> Vec<Sample<'_>> {
    TaskKind::ALL
        .iter()
        .flat_map(|kind| {
            let of_kind = results.held_out.iter().enumerate().filter(|(_, q)| q.kind == kind.name());
            of_kind.take(SAMPLES_PER_KIND)
        })
        .map(|(index, question)| Sample {
            request: &question.request,
            answer: &question.answer,
            replies: results
                .stages
                .iter()
                .map(|stage| &stage.evaluation.answers[index])
                .map(|answer| Reply { text: &answer.text, correct: answer.correct, ended: answer.ended })
                .collect(),
        })
        .collect()
}
