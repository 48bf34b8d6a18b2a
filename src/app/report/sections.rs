//! The sections of the page.
use planish_runtime::evaluate::Speed;

use super::clips::Clips;
use super::comparison::{Comparison, Panel, Series};
use super::plots::{Axes, Line, bars, envelopes, heat, lines};
use super::record::Record;
use crate::app::error::AppError;

/// A part of the page under a heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// What is to be seen, or why there is nothing.
    pub(super) text: Vec<String>,
    /// Rows of name and value.
    pub(super) rows: Vec<(&'static str, String)>,
    /// Plots, each as SVG with its caption.
    pub(super) plots: Vec<(&'static str, String)>,
}

/// All that the page is about.
pub(super) struct Findings {
    pub(super) record: Record,
    /// Or why there is none.
    pub(super) comparison: Result<Comparison, String>,
    pub(super) clips: Vec<Clips>,
    /// Whether of the original, and the speed.
    pub(super) speeds: Vec<(bool, Speed)>,
}

impl Findings {
    /// The page, section by section.
    ///
    /// # Errors
    /// If a plot can't be drawn.
    pub(super) fn sections(&self) -> Result<Vec<Section>, AppError> {
        let record = &self.record;
        let settings = Section {
            title: "Settings",
            text: record.notes.clone(),
            rows: record.rows(),
            ..Section::default()
        };
        let weights = self.flatness(
            "Flatness of weights",
            "The weights that each site multiplies by, before as in the original, after as \
             transformed and rounded; channels are input channels.",
            |found| &found.weights,
        )?;
        let activations = self.flatness(
            "Flatness of activations",
            "What each site reads while a text runs through both models, before as in the \
             original, after as transformed and not yet rounded.",
            |found| &found.activations,
        )?;
        let rest = [self.errors()?, self.learning()?, self.clipping()?];
        Ok([settings, self.size()?, weights, activations].into_iter().chain(rest).collect())
    }

    fn size(&self) -> Result<Section, AppError> {
        let (before, after) = (self.record.weight_bytes_before, self.record.weight_bytes_after);
        let row = |original: bool, value: f64| {
            (if original { "original" } else { "quantised" }.to_owned(), value, original)
        };
        let mebibytes = |original, bytes: u64| row(original, bytes as f64 / 1_048_576.0);
        let sizes = bars("MiB", &[mebibytes(true, before), mebibytes(false, after)])?;
        let smaller = before as f64 / after.max(1) as f64;
        let mut section = Section {
            title: "Size and speed",
            text: vec![format!("The weights take {smaller:.1} times less memory than before.")],
            plots: vec![("Weights", sizes)],
            ..Section::default()
        };
        if self.speeds.is_empty() {
            section.text.push("Speed was not measured; --bench does it.".into());
            return Ok(section);
        }
        let speeds = |of: fn(&Speed) -> f64| -> Vec<_> {
            self.speeds.iter().map(|(original, speed)| row(*original, of(speed))).collect()
        };
        let prompt = bars("tokens/s", &speeds(|speed| speed.prefill_tokens_per_s))?;
        let text = bars("tokens/s", &speeds(|speed| speed.decode_tokens_per_s))?;
        section.plots.extend([("Reading a prompt", prompt), ("Writing text", text)]);
        Ok(section)
    }

    fn flatness(
        &self,
        title: &'static str,
        what: &str,
        panels: impl Fn(&Comparison) -> &Vec<Panel>,
    ) -> Result<Section, AppError> {
        let mut section = Section { title, ..Section::default() };
        let found = match &self.comparison {
            Ok(found) if !panels(found).is_empty() => found,
            Ok(_) => {
                section.text.push(NO_SITES.into());
                return Ok(section);
            }
            Err(reason) => {
                section.text.push(reason.clone());
                return Ok(section);
            }
        };
        section.text.push(format!(
            "{what} Magnitudes of the channels, sorted, as multiples of the root mean square: the \
             more level a curve, the better a common scale fits."
        ));
        let caption = "Largest and mean magnitude of each channel, first, middle and last block";
        section.plots.push((caption, envelopes(panels(found), found.labels.len())?));
        Ok(section)
    }

    fn errors(&self) -> Result<Section, AppError> {
        let mut section = Section { title: "Quantisation error", ..Section::default() };
        let found = match &self.comparison {
            Ok(found) => found,
            Err(reason) => {
                section.text.push(reason.clone());
                return Ok(section);
            }
        };
        let is_known = |all: &[Series]| all.iter().any(|s| s.values.iter().any(Option::is_some));
        let maps = [
            (
                "Rounding of activations: squared error relative to the transformed activation",
                &found.activation_errors,
            ),
            (
                "Rounding of weights: expected squared error, scale²/12 for each weight, relative \
                 to the rounded weights",
                &found.weight_noise,
            ),
        ];
        for (caption, series) in maps.into_iter().filter(|(_, series)| is_known(series)) {
            section.plots.push((caption, heat(series)?));
        }
        if is_known(&found.output_errors) {
            let caption = "Squared error of what blocks give in the quantised model, relative to \
                           the original";
            let axes = Axes { x: "block", y: "relative squared error", log: true };
            section.plots.push((caption, lines(&series_lines(&found.output_errors), axes)?));
        }
        if section.plots.is_empty() {
            section.text.push(NO_SITES.into());
        }
        Ok(section)
    }

    fn learning(&self) -> Result<Section, AppError> {
        let mut section = Section { title: "Loss curves", ..Section::default() };
        let losses = &self.record.block_losses;
        if losses.iter().all(Vec::is_empty) {
            let method = &self.record.method;
            let text = format!("The method {method} learns nothing, so there is no loss.");
            section.text.push(text);
            return Ok(section);
        }
        let n = losses.len();
        let curve = |(block, losses): (usize, &Vec<Option<f64>>)| {
            let shade = block as f64 / n.max(2).saturating_sub(1) as f64 * 0.92;
            let mut line = Line::new(&format!("block {block}"), shade, losses);
            let is_named = [0, n / 3, n * 2 / 3, n - 1].contains(&block);
            (line.thin, line.of) = (true, line.of.filter(|_| is_named));
            line
        };
        let curves: Vec<Line> = losses.iter().enumerate().map(curve).collect();
        let axes = Axes { x: "step", y: "mean squared error", log: true };
        section.plots.push(("The loss of every block over its steps", lines(&curves, axes)?));
        let ends = [
            ("mean of the first tenth", 0.75, start as fn(&[Option<f64>]) -> Option<f64>),
            ("mean of the last tenth", 0.3, end),
        ];
        let ends = ends.map(|(of, shade, mean)| {
            Line::new(of, shade, &losses.iter().map(|l| mean(l)).collect::<Vec<_>>())
        });
        let axes = Axes { x: "block", ..axes };
        section.plots.push(("What each block gained", lines(&ends, axes)?));
        if !self.record.divergences.is_empty() {
            let curve = [Line { of: None, ..Line::new("", 0.3, &self.record.divergences) }];
            let axes = Axes { x: "step", y: "KL divergence per token", log: true };
            let caption = "The last stage, all blocks together: divergence from the original";
            section.plots.push((caption, lines(&curve, axes)?));
        }
        Ok(section)
    }

    fn clipping(&self) -> Result<Section, AppError> {
        let mut section = Section { title: "Clipping ratios", ..Section::default() };
        let clipping: Vec<&Clips> = self.clips.iter().filter(|clips| clips.clip()).collect();
        if clipping.is_empty() {
            let text = "No activation, key or value is clipped: every quantiser takes the whole \
                        range of its token.";
            section.text.push(text.into());
            return Ok(section);
        }
        section.text.push(
            "The part of a token's range that codes reach: thick for the largest value, thin for \
             the smallest."
                .into(),
        );
        let n = clipping.len();
        let curves = clipping.iter().enumerate().flat_map(|(i, clips)| {
            let shade = i as f64 / n.max(2).saturating_sub(1) as f64 * 0.95;
            [(0, false), (1, true)].map(|(side, thin)| {
                let ratios: Vec<_> = clips.ratios.iter().map(|r| Some(r[side])).collect();
                let mut line = Line::new(&clips.of, shade, &ratios);
                (line.thin, line.of) = (thin, line.of.filter(|_| !thin));
                line
            })
        });
        let curves: Vec<Line> = curves.collect();
        let axes = Axes { x: "block", y: "clipping ratio", log: false };
        section.plots.push(("Clipping ratios of every block", lines(&curves, axes)?));
        Ok(section)
    }
}

const NO_SITES: &str = "No layer of the original was found in the quantised graph: they do not \
                        belong together.";

fn series_lines(series: &[Series]) -> Vec<Line> {
    let n = series.len().max(2) - 1;
    let line = |(i, s): (usize, &Series)| Line::new(&s.of, i as f64 / n as f64 * 0.8, &s.values);
    series.iter().enumerate().map(line).collect()
}

fn start(losses: &[Option<f64>]) -> Option<f64> {
    mean(&losses[..tenth(losses)])
}

fn end(losses: &[Option<f64>]) -> Option<f64> {
    mean(&losses[losses.len() - tenth(losses)..])
}

fn tenth(losses: &[Option<f64>]) -> usize {
    losses.len().div_ceil(10)
}

fn mean(values: &[Option<f64>]) -> Option<f64> {
    let finite: Vec<f64> = values.iter().flatten().copied().collect();
    (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
}
