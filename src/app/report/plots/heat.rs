//! A number of every site of every block, as colours.
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Drawn, FONT, WIDTH, log_range, shade, svg};
use crate::app::error::AppError;
use crate::app::report::comparison::Series;

const ROW: u32 = 34;
const MARGIN: u32 = 96;
/// Steps of the scale of colours.
const STEPS: i32 = 40;
/// Its width in pixels.
const SCALE: i32 = 320;
/// Room for the names of the rows.
const LABELS: u32 = 130;
/// Cells of at least this width carry their numbers.
const READABLE: u32 = 33;

/// Blocks from left to right, one row a series; colours by the logarithm.
pub(in crate::app::report) fn heat(rows: &[Series]) -> Result<String, AppError> {
    let size = (WIDTH, ROW * rows.len() as u32 + MARGIN);
    svg(size, |root| {
        let (map, bar) = root.split_vertically(size.1 - 46);
        let values = || rows.iter().flat_map(|row| row.values.iter().flatten().copied());
        let range = log_range(values(), 6);
        let place = |x: f64| (x / range.start).ln() / (range.end / range.start).ln();
        draw_map(&map, rows, &place)?;
        draw_scale(&bar, &range)
    })
}

fn draw_map(area: &Area<'_>, rows: &[Series], place: &dyn Fn(f64) -> f64) -> Drawn {
    let n_blocks = rows.iter().map(|row| row.values.len()).max().unwrap_or(0) as i32;
    let n_rows = rows.len() as i32;
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .x_label_area_size(36)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((0..n_blocks - 1).into_segmented(), (0..n_rows - 1).into_segmented())?;
    let label = |y: &SegmentValue<i32>| match y {
        // From top to bottom.
        SegmentValue::CenterOf(y) => {
            rows.get((n_rows - 1 - y) as usize).map_or(String::new(), |row| row.of.clone())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_mesh()
        .label_style(FONT)
        .x_labels(n_blocks.min(40) as usize)
        .y_labels(rows.len())
        .x_desc("block")
        .y_label_formatter(&label)
        .draw()?;
    let width = (WIDTH - LABELS - 12) / n_blocks.max(1) as u32;
    for (row, series) in rows.iter().enumerate() {
        let y = n_rows - 1 - row as i32;
        let exact = SegmentValue::Exact;
        for (block, value) in series.values.iter().enumerate() {
            let (Some(value), x) = (value, block as i32) else { continue };
            let t = place(*value);
            let corners = [(exact(x), exact(y)), (exact(x + 1), exact(y + 1))];
            chart.draw_series([Rectangle::new(corners, shade(t).filled())])?;
            if width >= READABLE {
                let color = if t < 0.6 { WHITE } else { BLACK };
                let font = ("sans-serif", 11).into_font().color(&color);
                let style = font.pos(Pos::new(HPos::Center, VPos::Center));
                let middle = (SegmentValue::CenterOf(x), SegmentValue::CenterOf(y));
                chart.draw_series([Text::new(percent(*value), middle, style)])?;
            }
        }
    }
    Ok(())
}

/// The colours from the lowest to the highest number, with numbers at both ends and between.
fn draw_scale(area: &Area<'_>, range: &std::ops::Range<f64>) -> Drawn {
    let style = ("sans-serif", 11).into_font().color(&BLACK);
    let style = style.pos(Pos::new(HPos::Center, VPos::Top));
    let left = |step: i32| LABELS as i32 + 6 + step * SCALE / STEPS;
    for step in 0..STEPS {
        let color = shade((f64::from(step) + 0.5) / f64::from(STEPS));
        let corners = [(left(step), 4), (left(step + 1), 18)];
        area.draw(&Rectangle::new(corners, color.filled()))?;
    }
    for step in [0, STEPS / 2, STEPS] {
        let ratio = (range.end / range.start).powf(f64::from(step) / f64::from(STEPS));
        let text = percent(range.start * ratio);
        area.draw(&Text::new(text, (left(step), 22), style.clone()))?;
    }
    Ok(())
}

fn percent(x: f64) -> String {
    let x = x * 100.0;
    if x < 0.1 { format!("{x:.2}%") } else { format!("{x:.1}%") }
}
