//! Curves as SVG.

use plotters::prelude::*;

use super::super::stage::Curve;

const SIZE: (u32, u32) = (480, 220);

/// The page's style sheet finds the parts of a chart by these colours and replaces them by those of its theme.
const FAINT: RGBColor = RGBColor(0xa0, 0xb8, 0xf0);
const STRONG: RGBColor = RGBColor(0x30, 0x60, 0xd0);
const GRID: RGBColor = RGBColor(0xe0, 0xe0, 0xe0);
const AXIS: RGBColor = RGBColor(0x9e, 0x9e, 0x9e);

/// Weight of the past in the smoothed curve.
const SMOOTHING: f64 = 0.85;

/// A curve over the steps of a run: every step in a faint colour, the trend in a strong one.
pub(super) fn line_chart(curve: &Curve) -> anyhow::Result<String> {
    let last_step = curve.points.last().map_or(1, |(step, _)| *step).max(2);
    let highest = curve.points.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(1..last_step, 0.0..highest * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(("sans-serif", 14))
            .x_labels(6)
            .y_labels(5)
            .y_label_formatter(&|value| format!("{value:.1}"))
            .x_desc("step")
            .y_desc(curve.name.replace('_', " "))
            .draw()?;
        chart.draw_series(LineSeries::new(curve.points.iter().copied(), FAINT.stroke_width(1)))?;
        chart.draw_series(LineSeries::new(smoothed(&curve.points), STRONG.stroke_width(2)))?;
        root.present()?;
    }
    Ok(svg)
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
