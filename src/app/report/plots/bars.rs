//! A few numbers as bars.
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{AFTER, BEFORE, FONT, short, svg};
use crate::app::error::AppError;

const ROW: u32 = 30;
const WIDTH: u32 = 560;

/// Horizontal bars from top to bottom, the original's (`true`) in their own colour.
pub(in crate::app::report) fn bars(
    unit: &str,
    rows: &[(String, f64, bool)],
) -> Result<String, AppError> {
    svg((WIDTH, ROW * rows.len() as u32 + 16), |root| {
        let n = rows.len() as i32;
        let largest = rows.iter().map(|row| row.1).fold(f64::MIN_POSITIVE, f64::max);
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .y_label_area_size(150)
            .build_cartesian_2d(0f64..largest * 1.35, (0..n - 1).into_segmented())?;
        let label = |y: &SegmentValue<i32>| match y {
            SegmentValue::CenterOf(y) => {
                rows.get((n - 1 - y) as usize).map_or(String::new(), |row| row.0.clone())
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .disable_x_axis()
            .y_labels(rows.len())
            .y_label_formatter(&label)
            .label_style(FONT)
            .draw()?;
        for (row, (_, value, original)) in rows.iter().enumerate() {
            let y = n - 1 - row as i32;
            let color = if *original { BEFORE } else { AFTER };
            let corners = [(0.0, SegmentValue::Exact(y)), (*value, SegmentValue::Exact(y + 1))];
            let mut bar = Rectangle::new(corners, color.filled());
            bar.set_margin(5, 5, 0, 0);
            chart.draw_series([bar])?;
            let style = FONT.into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            let end = (*value + largest * 0.015, SegmentValue::CenterOf(y));
            let text = format!("{} {unit}", short(&((value * 10.0).round() / 10.0)));
            chart.draw_series([Text::new(text, end, style)])?;
        }
        Ok(())
    })
}
