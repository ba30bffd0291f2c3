//! Curves over the steps of a run, as SVG.

use plotters::{coord::types::RangedCoordf64, prelude::*};

const SIZE: (u32, u32) = (480, 220);

/// The style sheet finds the parts of a chart by these colours and replaces them by those of the reader's theme.
const FAINT: RGBColor = RGBColor(0xa0, 0xb8, 0xf0);
const STRONG: RGBColor = RGBColor(0x30, 0x60, 0xd0);
const SECOND: RGBColor = RGBColor(0xc0, 0x6a, 0x1c);
const GRID: RGBColor = RGBColor(0xe0, 0xe0, 0xe0);
const AXIS: RGBColor = RGBColor(0x9e, 0x9e, 0x9e);

/// Weight of the past in the smoothed curve.
const SMOOTHING: f64 = 0.85;

/// More points than the chart has pixels for say nothing.
const MOST_POINTS: usize = 400;

/// What is drawn of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// Every step in a faint colour, the trend in a strong one.
    Trend,
    /// A line from step to step.
    Line,
    /// Dots, joined by a line of a second colour: for what is measured now and then.
    Dots,
}

/// Where the vertical axis begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// At 0.
    Zero,
    /// Below the lowest value.
    Lowest,
}

/// A measurement over the steps of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Series<'a> {
    /// Steps, counted from 1 and rising, and values.
    pub(crate) points: &'a [(u64, f64)],
    /// What is drawn of it.
    pub(crate) stroke: Stroke,
}

/// A chart of measurements of one kind.
#[derive(Debug)]
pub(crate) struct LineChart<'a> {
    /// What the vertical axis shows.
    pub(crate) label: &'a str,
    /// Where it begins.
    pub(crate) baseline: Baseline,
    /// The measurements.
    pub(crate) series: Vec<Series<'a>>,
}

type Area<'a> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<plotters::coord::types::RangedCoordu64, RangedCoordf64>>;

impl LineChart<'_> {
    /// The chart as an SVG element.
    pub(crate) fn svg(&self) -> anyhow::Result<String> {
        let (lowest, highest) = self.range();
        let steps = || self.series.iter().flat_map(|series| series.points).map(|(step, _)| *step);
        let (first, last) = (steps().min().unwrap_or(1).min(1), steps().max().unwrap_or(1).max(2));
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin(8)
                .margin_right(20)
                .x_label_area_size(36)
                .y_label_area_size(60)
                .build_cartesian_2d(first..last, lowest..highest)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(GRID)
                .axis_style(AXIS)
                .label_style(("sans-serif", 14))
                .x_labels(6)
                .y_labels(5)
                .y_label_formatter(&|value| tick(*value, highest - lowest))
                .x_desc("step")
                .y_desc(self.label)
                .draw()?;
            for series in &self.series {
                draw(&mut chart, *series)?;
            }
            root.present()?;
        }
        Ok(svg)
    }

    /// The ends of the vertical axis, with room around the values.
    fn range(&self) -> (f64, f64) {
        let points = self.series.iter().flat_map(|series| series.points);
        let values = points.map(|(_, value)| *value).filter(|value| value.is_finite());
        let (lowest, highest) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if lowest > highest {
            return (0.0, 1.0);
        }
        if self.baseline == Baseline::Zero && lowest >= 0.0 {
            return (0.0, highest.max(f64::MIN_POSITIVE.sqrt()) * 1.05);
        }
        let room = 0.05 * (highest - lowest).max(1e-3 * highest.abs()).max(1e-12);
        (lowest - room, highest + room)
    }
}

fn draw(chart: &mut Area<'_>, series: Series<'_>) -> anyhow::Result<()> {
    let points = thinned(series.points);
    match series.stroke {
        Stroke::Trend => {
            let trend = smoothed(&points);
            chart.draw_series(LineSeries::new(points, FAINT.stroke_width(1)))?;
            chart.draw_series(LineSeries::new(trend, STRONG.stroke_width(2)))?;
        }
        Stroke::Line => {
            chart.draw_series(LineSeries::new(points, STRONG.stroke_width(2)))?;
        }
        Stroke::Dots => {
            chart.draw_series(LineSeries::new(points.iter().copied(), SECOND.stroke_width(2)))?;
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, SECOND.filled())))?;
        }
    }
    Ok(())
}

/// Means of as many neighbours as it takes. What is not a number is left out.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let finite: Vec<(u64, f64)> = points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let neighbours = finite.len().div_ceil(MOST_POINTS).max(1);
    let mean = |chunk: &[(u64, f64)]| {
        let sum: f64 = chunk.iter().map(|(_, value)| value).sum();
        (chunk[chunk.len() - 1].0, sum / chunk.len() as f64)
    };
    finite.chunks(neighbours).map(mean).collect()
}

/// An exponential moving average that starts without a bias towards 0.
fn smoothed(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let (mut sum, mut weight) = (0.0, 0.0);
    points
        .iter()
        .map(|&(step, value)| {
            sum = SMOOTHING * sum + value;
            weight = SMOOTHING * weight + 1.0;
            (step, sum / weight)
        })
        .collect()
}

/// A value at the axis, as exact as an axis of this length needs it.
fn tick(value: f64, length: f64) -> String {
    let size = value.abs().max(length);
    if size >= 1e6 {
        return format!("{}M", tick(value / 1e6, length / 1e6));
    }
    if size >= 1e4 {
        return format!("{}k", tick(value / 1e3, length / 1e3));
    }
    if value != 0.0 && size < 1e-2 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = (1.0 - length.log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_as_exact_as_the_axis() {
        let cases = [
            (2.5, 4.0, "2.5"),
            (0.0, 1.0, "0.0"),
            (0.91, 0.2, "0.91"),
            (150.0, 600.0, "150"),
            (12_000.0, 20_000.0, "12k"),
            (2e-5, 2e-5, "2e-5"),
            (1.5e-5, 2e-5, "1.5e-5"),
            (0.0, 2e-5, "0.0000"),
        ];
        for (value, length, expected) in cases {
            assert_eq!(tick(value, length), expected);
        }
    }

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_mean() {
        let points: Vec<(u64, f64)> = (1..=100_000).map(|step| (step, (step % 10) as f64)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS);
        assert_eq!(thin.last().unwrap().0, 100_000);
        assert!(thin.iter().all(|(_, value)| (value - 4.5).abs() < 1e-9));
    }

    #[test]
    fn charts_of_odd_measurements_can_be_drawn() {
        for points in [&[][..], &[(1, f64::NAN)], &[(1, 3.0)], &[(1, 0.0), (2, 0.0)], &[(1, -1.0), (9, 1e9)]]
        {
            for baseline in [Baseline::Zero, Baseline::Lowest] {
                let series =
                    [Stroke::Trend, Stroke::Line, Stroke::Dots].map(|stroke| Series { points, stroke });
                let chart = LineChart { label: "loss", baseline, series: series.into() };
                assert!(chart.svg().unwrap().starts_with("<svg"), "{points:?}");
            }
        }
    }
}
