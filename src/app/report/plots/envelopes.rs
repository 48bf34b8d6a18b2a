//! Sorted magnitudes before and after, one panel a site.
use plotters::prelude::*;

use super::{AFTER, Area, BEFORE, Drawn, GRID, WIDTH, legend, log_label, log_range, svg};
use crate::app::error::AppError;
use crate::app::report::comparison::Panel;

const ROW: u32 = 210;
const LEGEND: u32 = 28;
/// Points of a curve; more can't be told apart.
const POINTS: usize = 240;

/// Panels in rows of `n_columns`, with one scale for all.
pub(in crate::app::report) fn envelopes(
    panels: &[Panel],
    n_columns: usize,
) -> Result<String, AppError> {
    let n_columns = n_columns.clamp(1, panels.len().max(1));
    let n_rows = panels.len().div_ceil(n_columns);
    svg((WIDTH, ROW * n_rows as u32 + LEGEND), |root| {
        let (top, root) = root.split_vertically(LEGEND);
        let entries: Vec<_> = panels
            .first()
            .map_or(Vec::new(), |p| curves(p).map(|c| (c.1.to_owned(), c.2)).to_vec());
        legend(&top, &entries, (160, 0))?;
        let all = panels.iter().flat_map(|p| [&p.before, &p.after]);
        let range = log_range(all.flat_map(|e| e.largest.iter().chain(&e.mean).copied()), 4);
        let areas = root.split_evenly((n_rows, n_columns));
        areas.iter().zip(panels).try_for_each(|(area, panel)| draw(area, panel, &range))
    })
}

fn draw(area: &Area<'_>, panel: &Panel, range: &std::ops::Range<f64>) -> Drawn {
    let n = panel.before.largest.len();
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 14))
        .margin(6)
        .x_label_area_size(22)
        .y_label_area_size(36)
        .build_cartesian_2d(0f64..n as f64, range.clone().log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_labels(4)
        .y_labels(14)
        .label_style(("sans-serif", 11))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| log_label(*y, range))
        .draw()?;
    for (values, _, style) in curves(panel) {
        let points = points(values).map(|(x, y)| (x, y.max(range.start)));
        chart.draw_series(LineSeries::new(points, style))?;
    }
    Ok(())
}

/// The curves of a panel: magnitudes, name, style.
fn curves(panel: &Panel) -> [(&[f64], &'static str, ShapeStyle); 4] {
    let Panel { before, after, .. } = panel;
    [
        (&before.largest, "before, largest", BEFORE.stroke_width(2)),
        (&before.mean, "before, mean", BEFORE.mix(0.6).stroke_width(1)),
        (&after.largest, "after, largest", AFTER.stroke_width(2)),
        (&after.mean, "after, mean", AFTER.mix(0.6).stroke_width(1)),
    ]
}

/// Evenly spread points of a curve, the first and the last among them.
fn points(values: &[f64]) -> impl Iterator<Item = (f64, f64)> + '_ {
    let last = values.len().saturating_sub(1);
    let n = values.len().min(POINTS);
    (0..n).map(move |i| i * last / (n - 1).max(1)).map(|i| (i as f64, values[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::report::envelope::Envelope;

    #[test]
    fn long_curves_keep_their_ends() {
        let values: Vec<f64> = (0..5000).map(f64::from).collect();
        let found: Vec<_> = points(&values).collect();
        assert_eq!((found.len(), found[0].1, found[POINTS - 1].1), (POINTS, 0.0, 4999.0));
        assert_eq!(points(&[3.0]).collect::<Vec<_>>(), [(0.0, 3.0)]);
    }

    #[test]
    fn an_envelope_of_zeros_is_drawn() {
        let flat = Envelope { largest: vec![1.0, 0.0], mean: vec![0.5, 0.0] };
        let panel = Panel { title: "a".into(), before: flat.clone(), after: flat };
        assert!(envelopes(&[panel], 4).unwrap().contains("before, largest"));
    }
}
