//! Comparing the quantised model with its original: weights, and what a text does in both.
use std::collections::HashMap;

use planish_ir::{Model, Tensor};
use planish_passes::sites::{Block, Layout, Site, SiteRole};
use planish_runtime::decoder::{DecoderError, collect_values};
use planish_runtime::engine::Engine;

use super::envelope::{ChannelSums, Envelope};
use super::quantized::{Reading, add_reading, weight};

/// Envelopes before and after at a site of a block.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) before: Envelope,
    pub(super) after: Envelope,
}

/// A value of every block.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) of: String,
    /// By block; nothing where a block has no such value.
    pub(super) values: Vec<Option<f64>>,
}

/// What the two models have in common, and in what they differ.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Names of the kinds of sites, those of a block.
    pub(super) labels: Vec<String>,
    pub(super) weights: Vec<Panel>,
    pub(super) activations: Vec<Panel>,
    /// Of each kind of site: Σ scale²/12 over Σ w² of the rounded weights.
    pub(super) weight_noise: Vec<Series>,
    /// Of each kind of site: Σ (rounded − x)² over Σ x² of the transformed activation.
    pub(super) activation_errors: Vec<Series>,
    /// Of block outputs: Σ (quantised − original)² over Σ original².
    pub(super) output_errors: Vec<Series>,
}

/// A canonical model and its quantised form, which is canonical too.
pub(super) struct Pair<'a> {
    pub(super) original: &'a Model,
    pub(super) layout: &'a Layout,
    pub(super) quantized: &'a Model,
}

impl Pair<'_> {
    /// Compares everything; `window` runs through both models.
    ///
    /// # Errors
    /// If one of the models can't be run: whether it is the original, and why.
    pub(super) fn compare(
        &self,
        engine: &dyn Engine,
        window: &[u32],
    ) -> Result<Comparison, (bool, Box<DecoderError>)> {
        let labels = site_labels(self.layout);
        let mut found = Comparison { labels: labels.clone(), ..Comparison::default() };
        let n_blocks = self.layout.blocks.len();
        let empty = |of: &String| Series { of: of.clone(), values: vec![None; n_blocks] };
        found.weight_noise = labels.iter().map(empty).collect();
        found.activation_errors = labels.iter().map(empty).collect();
        self.compare_weights(&labels, &mut found);
        self.compare_activations(engine, window, &labels, &mut found)?;
        Ok(found)
    }

    /// All sites: block, kind, site.
    fn sites(&self) -> impl Iterator<Item = (usize, usize, &Site)> {
        let of_block = |(block, b): (usize, &Block)| {
            let ids = b.sites.clone().into_iter().enumerate();
            ids.map(move |(kind, id)| (block, kind, id))
        };
        let ids = self.layout.blocks.iter().enumerate().flat_map(of_block);
        ids.map(|(block, kind, id)| (block, kind, self.layout.site(id)))
    }

    fn compare_weights(&self, labels: &[String], found: &mut Comparison) {
        for (block, kind, site) in self.sites() {
            let shown = is_shown(block, self.layout.blocks.len());
            let [mut before, mut after] = [(); 2].map(|()| ChannelSums::new(site.channels));
            let (mut noise, mut norm) = (None, 0.0);
            for linear in site.linears.iter().map(|id| self.layout.linear(*id)) {
                let graph = &self.original.graph;
                let Some(w) = weight(&self.quantized.graph, graph, linear) else { continue };
                if w.data.len() != site.channels * w.n_columns {
                    continue;
                }
                norm += squares(&w.data);
                noise = w.rounding_noise.map_or(noise, |n| Some(noise.unwrap_or(0.0) + n));
                let data = graph.constant(linear.weight).and_then(|w| w.to_f32_vec().ok());
                if let Some(data) = data.filter(|_| shown) {
                    before.add_weight(&data, linear.out_features);
                    after.add_weight(&w.data, w.n_columns);
                }
            }
            let ratio = noise.map(|noise| noise / norm).filter(|ratio| ratio.is_finite());
            found.weight_noise[kind].values[block] = ratio;
            found.weights.extend(panel(block, &labels[kind], &before, &after));
        }
    }

    fn compare_activations(
        &self,
        engine: &dyn Engine,
        window: &[u32],
        labels: &[String],
        found: &mut Comparison,
    ) -> Result<(), (bool, Box<DecoderError>)> {
        let mut quantized = self.quantized.clone();
        let graph = &self.original.graph;
        let mut add = |site| add_reading(&mut quantized.graph, graph, self.layout, site);
        let readings: Vec<Option<Reading>> = self.sites().map(|(.., site)| add(site)).collect();
        let outputs = self.residual_values(labels);
        let name = |site: &Site| graph.value(site.input).name.clone();
        let mut names: Vec<String> = self.sites().map(|(.., site)| name(site)).collect();
        names.extend(outputs.iter().map(|(.., name)| name.clone()));
        let before = collect_values(self.original, engine, &names, window)
            .map_err(|error| (true, error.into()))?;
        let read = readings.iter().flatten();
        let mut names: Vec<String> =
            read.flat_map(|r| [Some(r.transformed.clone()), r.rounded.clone()]).flatten().collect();
        names.extend(outputs.iter().map(|(.., name)| name.clone()));
        let after = collect_values(&quantized, engine, &names, window)
            .map_err(|error| (false, error.into()))?;
        for ((block, kind, site), reading) in self.sites().zip(&readings) {
            let Some(reading) = reading else { continue };
            let transformed = floats(&after, &reading.transformed);
            if let Some(rounded) = reading.rounded.as_ref().and_then(|name| floats(&after, name)) {
                let error = transformed.as_ref().and_then(|x| relative_error(&rounded, x));
                found.activation_errors[kind].values[block] = error;
            }
            let x =
                floats(&before, &name(site)).filter(|_| is_shown(block, self.layout.blocks.len()));
            let (Some(x), Some(transformed)) = (x, transformed) else { continue };
            let sums = [x, transformed].map(|data| {
                let mut sums = ChannelSums::new(site.channels);
                sums.add_tokens(&data);
                sums
            });
            found.activations.extend(panel(block, &labels[kind], &sums[0], &sums[1]));
        }
        found.output_errors = output_errors(&outputs, &before, &after, self.layout.blocks.len());
        Ok(())
    }

    /// What is added to the residual stream, and the stream after each block: what of, block,
    /// name. Transforms leave these values as they are.
    fn residual_values(&self, labels: &[String]) -> Vec<(String, usize, String)> {
        let graph = &self.original.graph;
        let mut values = Vec::new();
        for (block, kind, site) in self.sites() {
            let of = match (labels[kind].as_str(), &site.linears[..]) {
                ("attention output", [_]) => "attention branch",
                ("MLP product" | "MLP activation", [_]) => "MLP branch",
                _ => continue,
            };
            let output = self.layout.linear(site.linears[0]).output;
            values.push((of.to_owned(), block, graph.value(output).name.clone()));
        }
        let streams = self.layout.blocks.iter().enumerate();
        let of = "residual stream after the block";
        values.extend(streams.map(|(i, b)| (of.to_owned(), i, graph.value(b.output).name.clone())));
        values
    }
}

/// Names of the sites of a block, by what stands before them.
fn site_labels(layout: &Layout) -> Vec<String> {
    let blocks = layout.blocks.iter().map(|block| &block.sites);
    let Some(sites) = blocks.max_by_key(|sites| sites.len()) else { return Vec::new() };
    let mut labels: Vec<String> = Vec::new();
    for (kind, id) in sites.iter().enumerate() {
        let after = |of: &str| labels.iter().any(|label| label == of);
        let (after_attention, after_mlp) = (after("attention output"), after("MLP input"));
        labels.push(match (&layout.site(*id).role, after_attention) {
            (SiteRole::Norm { .. }, false) => "attention input".to_owned(),
            (SiteRole::Norm { .. }, true) => "MLP input".to_owned(),
            (SiteRole::AttentionOutput { .. }, _) => "attention output".to_owned(),
            (SiteRole::GatedMlp { .. }, _) => "MLP product".to_owned(),
            (SiteRole::Other, _) if after_mlp => "MLP activation".to_owned(),
            (SiteRole::Other, _) => format!("site {}", kind + 1),
        });
    }
    labels
}

/// The first, the middle and the last block stand for all.
fn is_shown(block: usize, n_blocks: usize) -> bool {
    [0, n_blocks / 2, n_blocks - 1].contains(&block)
}

fn panel(block: usize, label: &str, before: &ChannelSums, after: &ChannelSums) -> Option<Panel> {
    let title = format!("block {block}, {label}");
    Some(Panel { title, before: before.envelope()?, after: after.envelope()? })
}

fn output_errors(
    values: &[(String, usize, String)],
    before: &HashMap<String, Tensor>,
    after: &HashMap<String, Tensor>,
    n_blocks: usize,
) -> Vec<Series> {
    let mut found: Vec<Series> = Vec::new();
    for (of, block, name) in values {
        if !found.iter().any(|series| series.of == *of) {
            found.push(Series { of: of.clone(), values: vec![None; n_blocks] });
        }
        let (Some(before), Some(after)) = (floats(before, name), floats(after, name)) else {
            continue;
        };
        let series = found.iter_mut().find(|series| series.of == *of);
        series.into_iter().for_each(|s| s.values[*block] = relative_error(&after, &before));
    }
    found
}

fn floats(values: &HashMap<String, Tensor>, name: &str) -> Option<Vec<f32>> {
    values.get(name)?.to_f32_vec().ok()
}

/// Σ (actual − exact)² over Σ exact².
fn relative_error(actual: &[f32], exact: &[f32]) -> Option<f64> {
    let pairs = actual.iter().zip(exact);
    let error: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let ratio = error / squares(exact);
    (actual.len() == exact.len() && ratio.is_finite()).then_some(ratio)
}

fn squares(data: &[f32]) -> f64 {
    data.iter().map(|x| f64::from(*x).powi(2)).sum()
}
