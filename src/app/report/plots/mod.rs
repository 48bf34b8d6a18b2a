//! Plots as inline SVG, drawn by plotters.
mod bars;
mod envelopes;
mod heat;
mod lines;

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::app::error::AppError;

pub(super) use bars::bars;
pub(super) use envelopes::envelopes;
pub(super) use heat::heat;
pub(super) use lines::{Axes, Line, lines};

/// Where a plot is drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Whether drawing went well.
type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

/// The original model.
const BEFORE: RGBColor = RGBColor(0xc4, 0x51, 0x2d);
/// The quantised model.
const AFTER: RGBColor = RGBColor(0x1f, 0x68, 0xad);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const FONT: (&str, i32) = ("sans-serif", 13);

/// Width of a page-wide plot, in pixels.
const WIDTH: u32 = 1160;

/// The SVG of what `draw` draws.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, AppError> {
    let mut text = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&root).and_then(|()| root.present().map_err(Into::into))
    };
    drawn.map_err(|error| AppError::Internal(format!("a plot can't be drawn: {error}")))?;
    // Within HTML the name space is known.
    Ok(text.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
}

/// A colour for `t` of 0 to 1, even in lightness: from dark violet to yellow (viridis).
fn shade(t: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 5] =
        [[68., 1., 84.], [59., 82., 139.], [33., 145., 140.], [94., 201., 98.], [240., 220., 50.]];
    let place = t.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let low = (place as usize).min(STOPS.len() - 2);
    let mix = |i: usize| STOPS[low][i] + (STOPS[low + 1][i] - STOPS[low][i]) * (place - low as f64);
    RGBColor(mix(0) as u8, mix(1) as u8, mix(2) as u8)
}

/// Draws what lines mean, one entry after the other at `step` pixels from each other.
fn legend(area: &Area<'_>, entries: &[(String, ShapeStyle)], step: (i32, i32)) -> Drawn {
    let text = ("sans-serif", 12).into_font().color(&BLACK);
    let text = text.pos(Pos::new(HPos::Left, VPos::Center));
    for (i, (of, style)) in entries.iter().enumerate() {
        let (x, y) = (step.0 * i as i32 + 8, step.1 * i as i32 + 12);
        area.draw(&PathElement::new(vec![(x, y), (x + 20, y)], style.stroke_width(3)))?;
        area.draw(&Text::new(of.clone(), (x + 26, y), text.clone()))?;
    }
    Ok(())
}

/// A number in few characters.
fn short(x: &f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        size if !(1e-3..1e5).contains(&size) => format!("{x:.0e}"),
        size if size >= 100.0 => format!("{x:.0}"),
        _ => format!("{}", (x * 1e4).round() / 1e4),
    }
}

/// Labels of a logarithmic axis over `range`: 1, 2, 5, 10, …, or powers of ten where there are
/// many; nothing in between.
fn log_label(x: f64, range: &std::ops::Range<f64>) -> String {
    let digit = (x / 10f64.powf((x.log10() + 1e-9).floor())).round() as u8;
    let few = range.end / range.start < 1e3;
    let is_labelled = digit == 1 || (few && [2, 5].contains(&digit));
    if is_labelled { short(&x) } else { String::new() }
}

/// The range of the positive numbers among `values` with some air around it, at most `decades`
/// powers of ten.
fn log_range(values: impl Iterator<Item = f64>, decades: i32) -> std::ops::Range<f64> {
    let positive = values.filter(|x| *x > 0.0 && x.is_finite());
    let (low, high) = positive.fold((f64::MAX, 0f64), |(l, h), x| (l.min(x), h.max(x)));
    if high == 0.0 {
        return 0.1..1.0;
    }
    low.max(high * 10f64.powi(-decades)) / 1.3..high * 1.3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let text: Vec<String> = [0.0, 1.0, 0.25, 1234.6, 2e7, 0.0004].iter().map(short).collect();
        assert_eq!(text, ["0", "1", "0.25", "1235", "2e7", "4e-4"]);
    }

    #[test]
    fn logarithmic_labels_keep_apart() {
        let labels = |range| [0.1, 0.2, 0.3, 1.0, 5.0].map(|x| log_label(x, &range)).concat();
        assert_eq!((labels(0.1..10.0), labels(0.1..1e4)), ("0.10.215".into(), "0.11".into()));
    }

    #[test]
    fn ranges_leave_out_what_a_logarithm_lacks() {
        let range = log_range([0.0, 1.0, f64::NAN, 10.0].into_iter(), 4);
        assert!(range.start > 0.7 && range.start < 1.0 && range.end == 13.0, "{range:?}");
        assert_eq!(log_range([0.0].into_iter(), 4), 0.1..1.0);
    }
}
