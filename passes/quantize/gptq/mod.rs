//! GPTQ (Frantar et al., arXiv 2210.17323): rounding the weights of a layer one input channel after
//! the other, each so that it makes good for what the channels before it were rounded by.
//!
//! For a column w `[K]` of the weight, whose rounded form is w − e, the squared error of the
//! output is eᵀ · H · e with H = Σ x · xᵀ. With H = M · Mᵀ, M upper triangular, it is |Mᵀ · e|²,
//! and element i of Mᵀ · e depends on e₀ … e_i only: GPTQ's rule "round channel i, then move the
//! channels after it to where the error is least" is to choose code i so that element i is least,
//! that is to round
//!
//! w_i + Σ_{k<i} (M_ki / M_ii) · e_k.
//!
//! (Babai's nearest plane, in the words of Chen et al., arXiv 2507.18553.) Against the paper's form
//! with the Cholesky factor of H⁻¹ this needs no inverse, and the errors are read where they were
//! made instead of being spread over all later rows: what the paper gains by updating lazily in
//! blocks of 128 is had for free, as a tile's sums stay in registers and its errors in the cache.

mod cholesky;

#[cfg(test)]
mod tests;

use cholesky::Cholesky;

use super::Hessian;
use super::weight::{
    QuantizedWeight, WeightError, WeightFormat, check_length, code_tensor, largest_code, round,
    scale_tensor,
};
use crate::parallel::for_each_chunk;

/// Output channels that are rounded side by side, as many f32 as the sums of which stay in
/// registers.
const TILE: usize = 16;

/// Why a Hessian is of no use.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum HessianError {
    /// An element that is infinite or not a number.
    #[error("has an element that is not a finite number")]
    NotFinite,
    /// Activations that span fewer dimensions than there are channels.
    #[error(
        "is not positive definite with a damping of {damp}: it needs more damping or more text"
    )]
    NotPositive {
        /// The damping that was not enough.
        damp: f64,
    },
}

/// A site's Hessian, made ready for the weights of its layers.
#[derive(Clone, Debug)]
pub struct Gptq {
    /// The channels in the order in which they are rounded.
    order: Vec<usize>,
    /// Row i: M_ki / M_ii for the k < i, i and k counted in `order`.
    rows: Vec<Vec<f32>>,
}

impl Gptq {
    /// Factorises the Hessian; `damp` and `act_order` are as in [`super::Rounding::Gptq`].
    /// Channels that were zero all the time are rounded to nearest: what they are rounded to
    /// changes nothing that is known.
    ///
    /// # Errors
    /// If an element is not finite, or the matrix is not positive definite.
    pub fn new(hessian: &Hessian, damp: f64, act_order: bool) -> Result<Self, HessianError> {
        if !hessian.elements().iter().all(|x| x.is_finite()) {
            return Err(HessianError::NotFinite);
        }
        let order = order(hessian, act_order);
        let n = order.len();
        // Reversing the channels turns the lower triangular factor into the upper triangular one:
        // H = M · Mᵀ with M_ki = L_(n−1−k)(n−1−i).
        let reversed: Vec<usize> = order.iter().rev().copied().collect();
        let matrix = damped(hessian, &reversed, damp);
        let factor = Cholesky::new(matrix, n).ok_or(HessianError::NotPositive { damp })?;
        let row = |i: usize| {
            let column = n - 1 - i;
            let element = |k: usize| factor.row(n - 1 - k)[column];
            (0..i).map(|k| (element(k) / element(i)) as f32).collect()
        };
        Ok(Self { rows: (0..n).map(row).collect(), order })
    }

    /// Rounds a transformed weight `[K, N]` by scales that are given, `[N]` or
    /// `[K / group_size, N]` row by row.
    ///
    /// # Errors
    /// If the weight is not of K rows or not finite, or there are not as many scales as it needs.
    pub fn quantize_columns(
        &self,
        weight: &[f32],
        n_columns: usize,
        format: WeightFormat,
        scales: Vec<f32>,
    ) -> Result<QuantizedWeight, WeightError> {
        let n_rows = self.order.len();
        check_length("input channels", weight.len() / n_columns.max(1), n_rows)?;
        if !weight.iter().all(|x| x.is_finite()) {
            return Err(WeightError::NotFinite);
        }
        let scale = scale_tensor(scales.clone(), format, n_rows, n_columns)?;
        let group_size = format.group_size.unwrap_or(n_rows).max(1);
        let layer = Layer { weight, n_columns, scales: &scales, group_size, bits: format.bits };
        let mut tiles = vec![Tile::default(); n_columns.div_ceil(TILE)];
        for_each_chunk(&mut tiles, 1, n_rows * weight.len(), |index, tile| {
            tile[0] = self.round_tile(&layer, index * TILE);
        });
        let codes = self.codes(&tiles, n_columns);
        Ok(QuantizedWeight {
            codes: code_tensor(&[n_rows, n_columns], codes, format.bits),
            scale,
            squared_error: tiles.iter().map(|tile| tile.squared_error).sum(),
            squared_norm: weight.iter().map(|x| f64::from(*x).powi(2)).sum(),
        })
    }

    /// Rounds the columns from `first`.
    fn round_tile(&self, layer: &Layer, first: usize) -> Tile {
        let qmax = largest_code(layer.bits);
        let n = self.order.len();
        let mut tile = Tile { codes: Vec::with_capacity(n), squared_error: 0.0 };
        let mut errors: Vec<[f32; TILE]> = Vec::with_capacity(n);
        for (channel, row) in self.order.iter().zip(&self.rows) {
            let moved = moves(row, &errors);
            let (weights, scales) = layer.row(*channel, first);
            let (mut error, mut codes) = ([0.0; TILE], [0i8; TILE]);
            for (j, (w, scale)) in weights.iter().zip(scales).enumerate() {
                let code = round((w + moved[j]) / scale, qmax);
                codes[j] = code as i8;
                error[j] = w - scale * code;
                tile.squared_error += f64::from(error[j]).powi(2);
            }
            errors.push(error);
            tile.codes.push(codes);
        }
        tile
    }

    /// The codes of all tiles with the channels in their own order, `[K, N]`.
    fn codes(&self, tiles: &[Tile], n_columns: usize) -> Vec<i8> {
        let mut codes = vec![0; self.order.len() * n_columns];
        for (position, channel) in self.order.iter().enumerate() {
            let row = &mut codes[channel * n_columns..][..n_columns];
            for (part, tile) in row.chunks_mut(TILE).zip(tiles) {
                part.copy_from_slice(&tile.codes[position][..part.len()]);
            }
        }
        codes
    }
}

/// A weight `[K, N]` and its scales.
struct Layer<'a> {
    weight: &'a [f32],
    n_columns: usize,
    scales: &'a [f32],
    group_size: usize,
    bits: u8,
}

impl<'a> Layer<'a> {
    /// The weights of an input channel in the columns of a tile, and their scales.
    fn row(&self, channel: usize, first: usize) -> (&'a [f32], &'a [f32]) {
        let last = (first + TILE).min(self.n_columns);
        let of = |list: &'a [f32], row: usize| &list[row * self.n_columns..][first..last];
        (of(self.weight, channel), of(self.scales, channel / self.group_size))
    }
}

/// The rounded form of some columns: rows of codes in the order of rounding.
#[derive(Clone, Default)]
struct Tile {
    codes: Vec<[i8; TILE]>,
    squared_error: f64,
}

/// Σ_k factor_k · error_k, for every column of a tile.
fn moves(factors: &[f32], errors: &[[f32; TILE]]) -> [f32; TILE] {
    let mut sums = [0.0; TILE];
    for (factor, error) in factors.iter().zip(errors) {
        sums.iter_mut().zip(error).for_each(|(sum, e)| *sum += factor * e);
    }
    sums
}

/// The channels in order, or by `act_order` those of the largest activations first: they are
/// rounded while there are still many others to make good for it.
fn order(hessian: &Hessian, act_order: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..hessian.n_channels()).collect();
    if act_order {
        let diagonal = hessian.diagonal();
        order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
    }
    order
}

/// H with its channels in the given order and `damp` times the mean of the diagonal added to the
/// diagonal, row by row. Rows of dead channels, all zero, get 1 there if that is nothing.
fn damped(hessian: &Hessian, order: &[usize], damp: f64) -> Vec<f64> {
    let n = order.len();
    let added = damp * hessian.mean_diagonal();
    let mut matrix = Vec::with_capacity(n * n);
    for (i, channel) in order.iter().enumerate() {
        let row = hessian.row(*channel);
        matrix.extend(order.iter().map(|other| row[*other]));
        let diagonal = &mut matrix[i * n + i];
        *diagonal += added;
        if *diagonal == 0.0 {
            *diagonal = 1.0;
        }
    }
    matrix
}
