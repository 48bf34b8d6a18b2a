//! Choosing the scales of a weight.

use super::round::{TILE, largest_code, round};
use super::{WeightError, WeightFormat, check_finite, check_length};
use crate::parallel::for_each_chunk;
use crate::quantize::WeightClip;

/// The search tries the ratios 1, 0.98, 0.96, … of the range.
const RATIO_STEP: f32 = 0.02;
/// The smallest range that a learned scale is made from.
const RANGE_FLOOR: f32 = 1e-8;

/// Which part of the range of the weights is represented.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clipping<'a> {
    /// All of it: the largest weight is represented exactly.
    #[default]
    Full,
    /// What makes the squared error of rounding to nearest least, for each scale on its own.
    Search {
        /// What the squared error of each of the K input channels counts, such as the diagonal of
        /// the layer's [`super::super::Hessian`]; `None`: all the same.
        importance: Option<&'a [f32]>,
    },
    /// Learned factors on the extremes.
    Learned(&'a WeightClip),
}

/// The scales of a weight `[K, N]`, `[N]` or `[K / group_size, N]` row by row.
///
/// With qmax = 2^(bits−1) − 1: max|w| / qmax, or the fraction of it that the search finds, or for
/// learned clips max(clip_max · max w, −clip_min · min w, 1e-8) / qmax.
///
/// # Errors
/// If an element of the weight is not finite, a clip is not positive, or a list does not fit.
pub fn column_scales(
    weight: &[f32],
    n_columns: usize,
    format: WeightFormat,
    clipping: Clipping,
) -> Result<Vec<f32>, WeightError> {
    check_finite(weight)?;
    let n_rows = weight.len() / n_columns.max(1);
    let n_groups = format.n_groups(n_rows)?;
    clipping.check(n_rows, n_groups * n_columns)?;
    let mut channels = vec![Vec::new(); n_columns];
    for_each_chunk(&mut channels, TILE, cost(weight.len(), format, clipping), |tile, channels| {
        let first = tile * TILE;
        let columns = gather(weight, n_columns, first, channels.len());
        for (j, (scales, column)) in
            channels.iter_mut().zip(columns.chunks(n_rows.max(1))).enumerate()
        {
            let groups = column.chunks((n_rows / n_groups.max(1)).max(1)).enumerate();
            let scale = |(group, values)| {
                clipping.scale(values, format.bits, group, group * n_columns + first + j)
            };
            *scales = groups.map(scale).collect();
        }
    });
    let mut result = Vec::with_capacity(n_groups * n_columns);
    for group in 0..n_groups {
        result.extend(channels.iter().map(|scales| scales.get(group).copied().unwrap_or(1.0)));
    }
    Ok(result)
}

/// The columns `first .. first + n` one after the other.
fn gather(weight: &[f32], n_columns: usize, first: usize, n: usize) -> Vec<f32> {
    let n_rows = weight.len() / n_columns.max(1);
    let mut columns = vec![0.0; n_rows * n];
    for (i, row) in weight.chunks(n_columns.max(1)).enumerate() {
        for (j, x) in row[first..first + n].iter().enumerate() {
            columns[j * n_rows + i] = *x;
        }
    }
    columns
}

fn cost(n: usize, format: WeightFormat, clipping: Clipping) -> usize {
    let n_ratios =
        if matches!(clipping, Clipping::Search { .. }) { n_ratios(format.bits) } else { 1 };
    n * n_ratios * 4
}

impl Clipping<'_> {
    fn check(self, n_rows: usize, n_scales: usize) -> Result<(), WeightError> {
        match self {
            Clipping::Full | Clipping::Search { importance: None } => Ok(()),
            Clipping::Search { importance: Some(list) } => {
                check_length("input channels", n_rows, list.len())
            }
            Clipping::Learned(clip) => {
                check_length("scales", n_scales, clip.max.len())?;
                check_length("scales", n_scales, clip.min.len())?;
                let mut clips = clip.max.iter().chain(&clip.min);
                let bad = clips.find(|clip| !clip.is_finite() || **clip <= 0.0);
                bad.map_or(Ok(()), |clip| Err(WeightError::Clip(*clip)))
            }
        }
    }

    /// The scale of the weights `values`, which are group number `group` of a channel and share
    /// scale number `index`.
    fn scale(self, values: &[f32], bits: u8, group: usize, index: usize) -> f32 {
        let qmax = largest_code(bits);
        match self {
            Clipping::Full => full_scale(values, qmax),
            Clipping::Search { importance } => {
                let rows = group * values.len()..(group + 1) * values.len();
                search(values, importance.map(|list| &list[rows]), bits)
            }
            Clipping::Learned(clip) => {
                let start = (f32::INFINITY, f32::NEG_INFINITY);
                let (low, high) =
                    values.iter().fold(start, |(low, high), x| (low.min(*x), high.max(*x)));
                let range = (clip.max[index] * high).max(-(clip.min[index] * low));
                range.max(RANGE_FLOOR) / qmax
            }
        }
    }
}

/// The scale that [`quantize_rows`](super::quantize_rows) gives the row `values`.
pub(super) fn row_scale(values: &[f32], bits: u8, searches: bool) -> f32 {
    if searches { search(values, None, bits) } else { full_scale(values, largest_code(bits)) }
}

/// max|w| / qmax.
fn full_scale(values: &[f32], qmax: f32) -> f32 {
    let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    // Codes of a group of zeros are zero whatever the scale, which must be a number to divide by.
    if largest > 0.0 { (largest / qmax).max(f32::MIN_POSITIVE) } else { 1.0 }
}

/// Ratios that are tried: down to 0.5 of the range, and where there are few codes further. The
/// best step of two bits for a normal distribution is about one standard deviation (Max, 1960),
/// where the largest of a thousand weights is more than three.
pub(super) fn n_ratios(bits: u8) -> usize {
    match bits {
        0..=2 => 43,
        3 => 36,
        _ => 26,
    }
}

/// The fraction of the full scale that has the least (weighted) squared error.
fn search(values: &[f32], importance: Option<&[f32]>, bits: u8) -> f32 {
    let qmax = largest_code(bits);
    let full = full_scale(values, qmax);
    let scales = (0..n_ratios(bits)).map(|i| full * (1.0 - RATIO_STEP * i as f32));
    let measured = scales.map(|scale| (squared_error(values, importance, scale, qmax), scale));
    measured.fold((f32::INFINITY, full), |best, next| if next.0 < best.0 { next } else { best }).1
}

/// Σ h · (w − scale · code)², h being the importance or 1.
fn squared_error(values: &[f32], importance: Option<&[f32]>, scale: f32, qmax: f32) -> f32 {
    let error = |x: f32| (x - scale * round(x / scale, qmax)).powi(2);
    match importance {
        None => sum_of(values, values, |x, _| error(x)),
        Some(importance) => sum_of(values, importance, |x, h| h * error(x)),
    }
}

/// Σ term(x, h), in eight sums so that the loop is vectorised.
fn sum_of(xs: &[f32], hs: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    let (xs, hs) = (xs.chunks_exact(8), hs.chunks_exact(8));
    let rest = xs.remainder().iter().zip(hs.remainder());
    let rest: f32 = rest.map(|(x, h)| term(*x, *h)).sum();
    for (xs, hs) in xs.zip(hs) {
        for (sum, (x, h)) in sums.iter_mut().zip(xs.iter().zip(hs)) {
            *sum += term(*x, *h);
        }
    }
    sums.iter().sum::<f32>() + rest
}
