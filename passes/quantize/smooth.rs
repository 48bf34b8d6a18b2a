//! SmoothQuant: per-channel scales between activations and weights.

use planish_ir::Graph;

use super::{CalibrationStats, QuantizeError, WeightError};
use crate::sites::{Layout, LinearId, SiteId, SiteRole};
use crate::transform::TransformSet;

/// Floor of the ranges, so that a dead channel gives no infinite scale.
const MIN_RANGE: f64 = 1e-5;

/// c_j = max|X_j|^α / max|W_j|^(1−α) for every channel j (SmoothQuant, arXiv 2211.10438, equation
/// 4): activations are divided by it, the rows of the weights multiplied. Sites without a layer
/// that a scale merges into get none; channels of an attention's values share one over their
/// group of query heads.
pub(super) fn smooth_scales(
    graph: &Graph,
    layout: &Layout,
    stats: Option<&CalibrationStats>,
    alpha: f64,
) -> Result<TransformSet, QuantizeError> {
    let mut set = TransformSet::identity(layout);
    for id in layout.site_ids() {
        if layout.site(id).role == SiteRole::Other {
            continue;
        }
        let ranges = stats.and_then(|stats| stats.channel_max(id));
        let missing = || QuantizeError::MissingStats { site: layout.describe_site(graph, id) };
        let n_channels = layout.site(id).channels;
        let ranges = ranges.filter(|r| r.len() == n_channels).ok_or_else(missing)?;
        let activations = ranges.iter().map(|x| f64::from(*x)).collect();
        let weights = weight_ranges(graph, layout, id)?;
        let (activations, weights) =
            (over_groups(layout, id, activations), over_groups(layout, id, weights));
        let scale = |(x, w): (&f64, &f64)| {
            let scale = x.max(MIN_RANGE).powf(alpha) / w.max(MIN_RANGE).powf(1.0 - alpha);
            scale.max(MIN_RANGE)
        };
        set.sites[id.0].scale = Some(activations.iter().zip(&weights).map(scale).collect());
    }
    Ok(set)
}

/// max|W_j| over all layers of the site, for every input channel j.
fn weight_ranges(graph: &Graph, layout: &Layout, id: SiteId) -> Result<Vec<f64>, QuantizeError> {
    let mut ranges = vec![0.0f64; layout.site(id).channels];
    for linear in &layout.site(id).linears {
        add_ranges(graph, layout, *linear, &mut ranges)?;
    }
    Ok(ranges)
}

fn add_ranges(
    graph: &Graph,
    layout: &Layout,
    id: LinearId,
    ranges: &mut [f64],
) -> Result<(), QuantizeError> {
    let linear = layout.linear(id);
    let stale = || QuantizeError::StaleLayout { layer: layout.describe_linear(graph, id) };
    let tensor = graph.constant(linear.weight).ok_or_else(stale)?;
    let weight = graph.value(linear.weight).name.clone();
    let data =
        tensor.as_f32().map_err(|error| QuantizeError::Weight { weight: weight.clone(), error })?;
    for (range, row) in ranges.iter_mut().zip(data.chunks(linear.out_features)) {
        if !row.iter().all(|x| x.is_finite()) {
            return Err(QuantizeError::Rounding { weight, error: WeightError::NotFinite });
        }
        *range = row.iter().fold(*range, |max, x| max.max(f64::from(x.abs())));
    }
    Ok(())
}

/// For a site that reads an attention: the largest over the query heads of each value head.
fn over_groups(layout: &Layout, id: SiteId, ranges: Vec<f64>) -> Vec<f64> {
    let SiteRole::AttentionOutput { attention, .. } = &layout.site(id).role else { return ranges };
    let attention = layout.attention(*attention);
    let size = attention.v_head_size;
    let group = attention.q_heads / attention.kv_heads;
    let mut largest = vec![0.0f64; attention.kv_heads * size];
    for (channel, range) in ranges.into_iter().enumerate() {
        let shared = channel / size / group * size + channel % size;
        largest[shared] = largest[shared].max(range);
    }
    largest
}
