//! The transforms of each method.

use planish_ir::Graph;

use super::smooth::smooth_scales;
use super::{CalibrationStats, Method, QuantizeError, QuantizeOptions};
use crate::sites::{HeadTransform, Layout, Site, SiteRole};
use crate::transform::{
    Matrix, Random, SiteMatrix, SiteTransform, StreamRotation, TransformSet, kronecker_sizes,
    spreading,
};

/// The transforms that the method of `options` puts into a model: at the sites if anything there
/// is rounded, on keys and values if the cache is.
///
/// # Errors
/// If SmoothQuant lacks the activations' ranges, or a weight can't be read.
pub fn transforms_of(
    graph: &Graph,
    layout: &Layout,
    options: &QuantizeOptions,
    stats: Option<&CalibrationStats>,
) -> Result<TransformSet, QuantizeError> {
    let mut random = Random::new(options.seed);
    match options.method {
        Method::Rtn => Ok(TransformSet::identity(layout)),
        Method::SmoothQuant { alpha } => smooth_scales(graph, layout, stats, alpha),
        Method::Hadamard => {
            Ok(rotations(layout, options, |n| with_random_signs(spreading(n), &mut random)))
        }
        Method::Orthogonal => Ok(rotations(layout, options, |n| random.orthogonal(n))),
    }
}

/// What the residual stream of `channels` channels is rotated by: factors that are random where the
/// method's are, else [`spreading`] with random signs.
pub fn stream_rotation(method: Method, channels: usize, seed: u64) -> StreamRotation {
    let (n1, n2) = kronecker_sizes(channels);
    // Other numbers than those of the rotations within heads.
    let mut random = Random::new(seed.wrapping_add(77));
    let mut rotation = |n| match method {
        Method::Orthogonal => random.orthogonal(n),
        _ => with_random_signs(spreading(n), &mut random),
    };
    StreamRotation { left: rotation(n1), right: rotation(n2) }
}

/// The matrix with its rows (the channels that it is applied to) multiplied by random signs, so
/// that channels which agree in sign do not add up in one place.
fn with_random_signs(mut matrix: Matrix, random: &mut Random) -> Matrix {
    for i in 0..matrix.n_rows() {
        let sign = random.sign();
        matrix.row_mut(i).iter_mut().for_each(|x| *x *= sign);
    }
    matrix
}

fn rotations(
    layout: &Layout,
    options: &QuantizeOptions,
    mut rotation: impl FnMut(usize) -> Matrix,
) -> TransformSet {
    let bits = options.bits;
    let rounds = bits.quantizes_weights() || bits.quantizes_activations();
    let places = Places { online: rounds && options.online, merged: rounds || bits.quantizes_kv() };
    let sites = layout.sites.iter().map(|site| {
        let matrix = site_matrix(layout, site, places, &mut rotation);
        SiteTransform { matrix, ..SiteTransform::default() }
    });
    let sites = sites.collect();
    let heads = layout.attentions.iter().map(|attention| {
        let takes = bits.quantizes_kv()
            && match attention.head_transform {
                Ok(HeadTransform::Online) => options.online,
                Ok(HeadTransform::Folded { .. }) => true,
                Err(_) => false,
            };
        takes.then(|| rotation(attention.head_size))
    });
    let heads = heads.collect();
    TransformSet { sites, heads }
}

/// Where rotations go.
#[derive(Clone, Copy)]
struct Places {
    /// Before layers, while the model runs.
    online: bool,
    /// Into weights, within the heads of values.
    merged: bool,
}

fn site_matrix(
    layout: &Layout,
    site: &Site,
    places: Places,
    rotation: &mut impl FnMut(usize) -> Matrix,
) -> SiteMatrix {
    match &site.role {
        SiteRole::AttentionOutput { attention, .. } => {
            let attention = layout.attention(*attention);
            let across =
                (places.online && attention.q_heads > 1).then(|| rotation(attention.q_heads));
            let within = places.merged.then(|| rotation(attention.v_head_size));
            SiteMatrix::Heads { across, within }
        }
        _ if places.online => {
            let (n1, n2) = kronecker_sizes(site.channels);
            SiteMatrix::Kronecker { left: Some(rotation(n1)), right: rotation(n2) }
        }
        _ => SiteMatrix::Identity,
    }
}
