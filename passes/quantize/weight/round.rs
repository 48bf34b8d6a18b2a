//! Rounding to nearest by given scales.

use planish_ir::Tensor;

use super::scale::{n_ratios, row_scale};
use super::{QuantizedWeight, WeightError, WeightFormat, check_finite, scale_tensor};
use crate::parallel::for_each_chunk;

/// Columns that are gathered together: as many f32 as a cache line holds. Rows that are rounded
/// together.
pub(super) const TILE: usize = 16;

/// Rounds a weight `[K, N]` to the nearest multiples of its scales, `[N]` or
/// `[K / group_size, N]` row by row.
///
/// # Errors
/// If an element is not finite, or there are not as many scales as the format needs.
pub fn round_columns(
    weight: &[f32],
    n_columns: usize,
    format: WeightFormat,
    scales: Vec<f32>,
) -> Result<QuantizedWeight, WeightError> {
    check_finite(weight)?;
    let n_rows = weight.len() / n_columns.max(1);
    let group_size = (n_rows / format.n_groups(n_rows)?.max(1)).max(1);
    let scale = scale_tensor(scales.clone(), format, n_rows, n_columns)?;
    let mut runs = vec![Run::default(); n_rows.div_ceil(TILE)];
    for_each_chunk(&mut runs, 1, 4 * weight.len(), |tile, run| {
        let rows = weight.chunks(n_columns.max(1)).enumerate().skip(tile * TILE).take(TILE);
        for (k, row) in rows {
            run[0].round(row, &scales[k / group_size * n_columns..][..n_columns], format.bits);
        }
    });
    Ok(assemble(&runs, &[n_rows, n_columns], scale, format.bits))
}

/// Rounds a weight `[N, K]` whose output channels are rows, with one scale for each; `searches`:
/// the ranges are shrunk to where the squared error is least.
///
/// # Errors
/// If an element is not finite.
pub fn quantize_rows(
    weight: &[f32],
    n_columns: usize,
    bits: u8,
    searches: bool,
) -> Result<QuantizedWeight, WeightError> {
    check_finite(weight)?;
    let n_rows = weight.len() / n_columns.max(1);
    let mut runs = vec![Run::default(); n_rows];
    let mut scales = vec![0.0f32; n_rows];
    let cost = 4 * weight.len() * if searches { n_ratios(bits) } else { 1 };
    for_each_chunk(&mut scales, TILE, cost, |tile, scales| {
        let rows = weight[tile * TILE * n_columns..].chunks(n_columns);
        for (scale, row) in scales.iter_mut().zip(rows) {
            *scale = row_scale(row, bits, searches);
        }
    });
    for_each_chunk(&mut runs, TILE, 4 * weight.len(), |tile, runs| {
        let rows = weight.chunks(n_columns.max(1)).zip(&scales).skip(tile * TILE);
        for (run, (row, scale)) in runs.iter_mut().zip(rows) {
            run.round(row, &vec![*scale; n_columns], bits);
        }
    });
    let scale = Tensor::from_vec(&[n_rows], scales);
    Ok(assemble(&runs, &[n_rows, n_columns], scale, bits))
}

/// Codes of a run of weights, row by row.
#[derive(Clone, Default)]
struct Run {
    codes: Vec<i8>,
    squared_error: f64,
    squared_norm: f64,
}

impl Run {
    /// Adds a row, each of its elements with a scale of its own.
    fn round(&mut self, row: &[f32], scales: &[f32], bits: u8) {
        let qmax = largest_code(bits);
        for (x, scale) in row.iter().zip(scales) {
            let code = round(x / scale, qmax);
            self.codes.push(code as i8);
            self.squared_error += f64::from(x - scale * code).powi(2);
            self.squared_norm += f64::from(*x).powi(2);
        }
    }
}

fn assemble(runs: &[Run], shape: &[usize], scale: Tensor, bits: u8) -> QuantizedWeight {
    let mut codes = Vec::with_capacity(shape.iter().product());
    runs.iter().for_each(|run| codes.extend_from_slice(&run.codes));
    let codes = code_tensor(shape, codes, bits);
    let squared_error = runs.iter().map(|run| run.squared_error).sum();
    let squared_norm = runs.iter().map(|run| run.squared_norm).sum();
    QuantizedWeight { codes, scale, squared_error, squared_norm }
}

/// `INT4` for up to 4 bits, else `INT8`.
pub(in crate::quantize) fn code_tensor(shape: &[usize], codes: Vec<i8>, bits: u8) -> Tensor {
    match bits {
        0..=4 => Tensor::from_int4_codes(shape, &codes),
        _ => Tensor::from_vec(shape, codes),
    }
}

/// 2^(bits−1) − 1.
pub(in crate::quantize) fn largest_code(bits: u8) -> f32 {
    f32::from((1u8 << (bits.clamp(2, 8) - 1)) - 1)
}

/// The nearest integer (ties to even) within −qmax − 1 to qmax. Adding and subtracting 1.5 · 2²³
/// rounds like `round_ties_even`, and is vectorised where that is a call per element.
pub(in crate::quantize) fn round(x: f32, qmax: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x.clamp(-qmax - 1.0, qmax) + MAGIC) - MAGIC
}
