//! The numbers and curves of a report.

use anyhow::Result;
use serde::Serialize;

use super::{
    super::{
        history::{History, Moment},
        machine,
        progress::REWARDS,
    },
    human,
};
use crate::page::{
    chart::{Baseline, LineChart, Series, Stroke},
    grouped,
};

/// A number to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Tile {
    label: &'static str,
    /// What it was at the beginning.
    before: Option<String>,
    value: String,
    note: String,
}

/// A chart and what it shows.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    title: String,
    svg: String,
    /// Whether dots show the evaluation.
    evaluated: bool,
}

/// Steps over which a loss at the beginning or the end is averaged: single batches are noisy.
const AVERAGED_STEPS: usize = 10;

/// Measurements in the order in which a reader wants them; others follow.
const FIRST: [&str; 6] = ["reward", "loss", "mean_token_accuracy", "entropy", "learning_rate", "grad_norm"];

/// Measurements that are no news.
const LEFT_OUT: [&str; 2] = ["num_tokens", "epoch"];

/// The numbers at the head of a report.
pub(super) fn tiles(history: &History, moments: &[Moment]) -> Vec<Tile> {
    let rewards = REWARDS.into_iter().map(|name| history.points(name)).find(|points| !points.is_empty());
    // Where there is a reward, the loss says little: its gradient is what counts.
    let mut tiles: Vec<Tile> = match rewards {
        Some(rewards) => trained("reward", rewards).into_iter().collect(),
        None => trained("loss", history.points("loss")).into_iter().collect(),
    };
    let by_loss = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
    let (losses, rewards) = (history.points("eval_loss"), history.points("eval_reward"));
    tiles.extend(evaluated("evaluation loss", losses, losses.iter().min_by(by_loss)));
    tiles.extend(evaluated("evaluation reward", rewards, rewards.iter().max_by(by_loss)));
    if let Some(tokens) = history.last("num_tokens") {
        let note = typical_speed(moments).map_or_else(String::new, |speed| format!("{speed:.0} a second"));
        tiles.push(Tile { label: "tokens seen", before: None, value: grouped(tokens as u64), note });
    }
    let seconds = moments.last().map_or(0.0, |moment| moment.seconds);
    let peak = machine::peak_memory().map(|peak| format!("peak memory {}", machine::bytes(peak)));
    tiles.push(Tile { label: "time", before: None, value: human(seconds), note: peak.unwrap_or_default() });
    tiles
}

/// What steps measured, at the beginning and at the end.
fn trained(label: &'static str, points: &[(u64, f64)]) -> Option<Tile> {
    let averaged = (points.len() / 2).clamp(1, AVERAGED_STEPS);
    let (first, last) = (mean(points.iter().take(averaged))?, mean(points.iter().rev().take(averaged))?);
    let note = format!("means of {averaged} steps");
    Some(Tile { label, before: Some(number(first)), value: number(last), note })
}

/// What evaluations found, the first and the last of them.
fn evaluated(label: &'static str, points: &[(u64, f64)], best: Option<&(u64, f64)>) -> Option<Tile> {
    let ([(_, first), .., (_, last)] | [(_, first @ last)]) = points else { return None };
    let note =
        best.map_or_else(String::new, |(step, value)| format!("best: {} at step {step}", number(*value)));
    let before = (points.len() > 1).then(|| number(*first));
    Some(Tile { label, before, value: number(*last), note })
}

/// A chart for each measurement; evaluations stand with what they evaluate.
pub(super) fn figures(history: &History, moments: &[Moment]) -> Result<Vec<Figure>> {
    let trained =
        |name: &&str| !name.starts_with("eval_") && !LEFT_OUT.contains(name) && !FIRST.contains(name);
    let others =
        history.names().filter(trained).chain(history.names().filter_map(|name| alone(history, name)));
    let names: Vec<&str> = FIRST.into_iter().chain(others).collect();
    let mut figures = Vec::new();
    for name in names {
        let (points, evaluated) = (history.points(name), history.points(&format!("eval_{name}")));
        if points.is_empty() && evaluated.is_empty() {
            continue;
        }
        let stroke = if name == "learning_rate" { Stroke::Line } else { Stroke::Trend };
        let baseline =
            if name == "learning_rate" || name == "grad_norm" { Baseline::Zero } else { Baseline::Lowest };
        let series = [Series { points, stroke }, Series { points: evaluated, stroke: Stroke::Dots }];
        figures.push(figure(name, baseline, series.into())?);
    }
    let speed: Vec<(u64, f64)> =
        moments.iter().map(|moment| (moment.step, moment.tokens_per_second)).collect();
    if speed.iter().any(|(_, tokens)| *tokens > 0.0) {
        let series = vec![Series { points: &speed, stroke: Stroke::Trend }];
        figures.push(figure("tokens_per_second", Baseline::Zero, series)?);
    }
    Ok(figures)
}

/// What an evaluation measures and training does not.
fn alone<'a>(history: &History, name: &'a str) -> Option<&'a str> {
    let base = name.strip_prefix("eval_")?;
    (history.points(base).is_empty() && !LEFT_OUT.contains(&base)).then_some(base)
}

fn figure(name: &str, baseline: Baseline, series: Vec<Series<'_>>) -> Result<Figure> {
    let title = title(name);
    let evaluated = series.iter().any(|one| one.stroke == Stroke::Dots && !one.points.is_empty());
    let svg = LineChart { label: "", baseline, series }.svg()?;
    Ok(Figure { title, svg, evaluated })
}

fn title(name: &str) -> String {
    match name {
        "mean_token_accuracy" => "token accuracy".into(),
        "grad_norm" => "gradient norm".into(),
        "entropy" => "entropy, in nats".into(),
        "tokens_per_second" => "tokens a second".into(),
        _ => name.replace(['_', '/'], " "),
    }
}

/// The median: single steps wait for evaluations and checkpoints.
fn typical_speed(moments: &[Moment]) -> Option<f64> {
    let mut speeds: Vec<f64> = moments.iter().map(|moment| moment.tokens_per_second).collect();
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).copied().filter(|speed| *speed > 0.0)
}

fn mean<'a>(points: impl Iterator<Item = &'a (u64, f64)>) -> Option<f64> {
    let values: Vec<f64> = points.map(|(_, value)| *value).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_has_its_chart() {
        let mut history = History::default();
        history.add(1, [("grad_norm", 1.0), ("loss", 1.0), ("num_tokens", 5.0), ("rewards/chosen", 0.5)]);
        history.add(1, [("eval_loss", 1.0), ("eval_perplexity", 2.7)]);
        let figures = figures(&history, &[]).unwrap();
        let titles: Vec<(&str, bool)> =
            figures.iter().map(|one| (one.title.as_str(), one.evaluated)).collect();
        assert_eq!(
            titles,
            [("loss", true), ("gradient norm", false), ("rewards chosen", false), ("perplexity", true)]
        );
    }

    #[test]
    fn the_tiles_tell_the_change() {
        let mut history = History::default();
        for step in 1..=30 {
            history.add(step, [("loss", if step <= 15 { 2.0 } else { 1.0 }), ("num_tokens", 1e4)]);
        }
        history.add(10, [("eval_loss", 1.5)]);
        history.add(20, [("eval_loss", 1.75)]);
        let moment = |speed| Moment { step: 1, seconds: 90.0, tokens_per_second: speed };
        let tiles = tiles(&history, &[moment(100.0), moment(1.0), moment(120.0)]);
        let told: Vec<String> = tiles
            .iter()
            .take(3)
            .map(|tile| format!("{}: {:?} {} ({})", tile.label, tile.before, tile.value, tile.note))
            .collect();
        assert_eq!(
            told,
            [
                "loss: Some(\"2.000\") 1.000 (means of 10 steps)",
                "evaluation loss: Some(\"1.500\") 1.750 (best: 1.500 at step 10)",
                "tokens seen: None 10\u{202f}000 (100 a second)",
            ]
        );
    }
}
