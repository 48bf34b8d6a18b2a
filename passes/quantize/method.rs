//! The transforms of each method.

use planish_ir::Graph;

use super::smooth::smooth_scales;
use super::{BitWidths, CalibrationStats, Method, QuantizeError, QuantizeOptions};
use crate::sites::{Layout, Site, SiteRole};
use crate::transform::{
    Matrix, Random, SiteMatrix, SiteTransform, TransformSet, kronecker_sizes, spreading,
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
            Ok(rotations(layout, options.bits, |n| with_random_signs(spreading(n), &mut random)))
        }
        Method::Orthogonal => Ok(rotations(layout, options.bits, |n| random.orthogonal(n))),
    }
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
    bits: BitWidths,
    mut rotation: impl FnMut(usize) -> Matrix,
) -> TransformSet {
    let at_sites = bits.quantizes_weights() || bits.quantizes_activations();
    let sites = layout.sites.iter().map(|site| {
        let matrix = site_matrix(layout, site, at_sites, bits.quantizes_kv(), &mut rotation);
        SiteTransform { matrix, ..SiteTransform::default() }
    });
    let sites = sites.collect();
    let heads = layout.attentions.iter().map(|attention| {
        let takes = bits.quantizes_kv() && attention.head_transform.is_ok();
        takes.then(|| rotation(attention.head_size))
    });
    let heads = heads.collect();
    TransformSet { sites, heads }
}

fn site_matrix(
    layout: &Layout,
    site: &Site,
    at_sites: bool,
    on_cache: bool,
    rotation: &mut impl FnMut(usize) -> Matrix,
) -> SiteMatrix {
    match &site.role {
        SiteRole::AttentionOutput { attention, .. } => {
            let attention = layout.attention(*attention);
            let across = (at_sites && attention.q_heads > 1).then(|| rotation(attention.q_heads));
            let within = (at_sites || on_cache).then(|| rotation(attention.v_head_size));
            SiteMatrix::Heads { across, within }
        }
        _ if at_sites => {
            let (n1, n2) = kronecker_sizes(site.channels);
            SiteMatrix::Kronecker { left: rotation(n1), right: rotation(n2) }
        }
        _ => SiteMatrix::Identity,
    }
}
