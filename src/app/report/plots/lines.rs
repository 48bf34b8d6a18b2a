//! Lines over steps or blocks.
use plotters::prelude::*;

use super::{Drawn, FONT, GRID, WIDTH, legend, log_label, log_range, shade, short, svg};
use crate::app::error::AppError;

/// A line.
#[derive(Debug, Clone)]
pub(in crate::app::report) struct Line {
    /// What the legend calls it; nothing leaves it out there.
    pub(in crate::app::report) of: Option<String>,
    /// Its colour on the scale from 0 to 1.
    pub(in crate::app::report) shade: f64,
    /// Whether it is drawn thin.
    pub(in crate::app::report) thin: bool,
    /// (x, y).
    pub(in crate::app::report) points: Vec<(f64, f64)>,
}

impl Line {
    /// A line in the legend through the values that there are, at 0, 1, ….
    pub(in crate::app::report) fn new(of: &str, shade: f64, values: &[Option<f64>]) -> Self {
        let points = values.iter().enumerate().filter_map(|(x, y)| Some((x as f64, (*y)?)));
        Self { of: Some(of.to_owned()), shade, thin: false, points: points.collect() }
    }

    fn style(&self) -> ShapeStyle {
        shade(self.shade).stroke_width(if self.thin { 1 } else { 2 })
    }
}

/// What the axes show.
#[derive(Debug, Clone, Copy)]
pub(in crate::app::report) struct Axes {
    pub(in crate::app::report) x: &'static str,
    pub(in crate::app::report) y: &'static str,
    /// Whether y is logarithmic.
    pub(in crate::app::report) log: bool,
}

/// Room for the legend.
const LEGEND: u32 = 210;

/// All lines in one plot, and what they mean beside it.
pub(in crate::app::report) fn lines(lines: &[Line], axes: Axes) -> Result<String, AppError> {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let right = all().map(|(x, _)| x).fold(1.0, f64::max);
    let log = log_range(all().map(|(_, y)| y), 6);
    // Within less than a power of ten, plotters finds next to nothing to label.
    let narrow = log.end / log.start < 12.0;
    let start = if narrow { 0.99 * 10f64.powf(log.start.log10().floor()) } else { log.start };
    let log = start..log.end;
    svg((WIDTH, 330), |root| {
        let named = lines.iter().filter_map(|line| Some((line.of.clone()?, line.style())));
        let named: Vec<_> = named.collect();
        let width = if named.is_empty() { WIDTH } else { WIDTH - LEGEND };
        let (plot, side) = root.split_horizontally(width);
        legend(&side, &named, (0, 22))?;
        let mut builder = ChartBuilder::on(&plot);
        builder.margin(8).margin_right(20).x_label_area_size(38).y_label_area_size(72);
        if axes.log {
            let chart = builder.build_cartesian_2d(0f64..right, log.clone().log_scale())?;
            return draw(chart, lines, axes, log.start, &|y| log_label(*y, &log));
        }
        let low = all().map(|(_, y)| y).fold(f64::MAX, f64::min);
        let high = all().map(|(_, y)| y).fold(f64::MIN, f64::max);
        let air = (high - low).max(1e-3) * 0.08;
        let chart = builder.build_cartesian_2d(0f64..right, low - air..high + air)?;
        draw(chart, lines, axes, f64::MIN, &short)
    })
}

type Chart<'a, 'b, Y> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>;

fn draw<'a, 'b: 'a, Y>(
    mut chart: Chart<'a, 'b, Y>,
    lines: &[Line],
    axes: Axes,
    floor: f64,
    label: &dyn Fn(&f64) -> String,
) -> Drawn
where
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_labels(16)
        .y_labels(if axes.log { 20 } else { 8 })
        .x_desc(axes.x)
        .y_desc(axes.y)
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_label_formatter(&whole)
        .y_label_formatter(&label)
        .draw()?;
    for line in lines {
        let style = line.style();
        let points = line.points.iter().map(|(x, y)| (*x, y.max(floor)));
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        if line.points.len() <= 64 {
            let dot = |point| Circle::new(point, if line.thin { 2 } else { 3 }, style.filled());
            chart.draw_series(points.map(dot))?;
        }
    }
    Ok(())
}

/// Steps and blocks are whole; what lies between them has no label.
fn whole(x: &f64) -> String {
    let nearest = x.round();
    if (x - nearest).abs() < 1e-6 { format!("{nearest}") } else { String::new() }
}
