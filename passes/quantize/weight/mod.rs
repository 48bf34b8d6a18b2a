//! Rounding weights to a few bits.

mod round;
mod scale;

#[cfg(test)]
mod tests;

use planish_ir::Tensor;

pub(super) use round::{code_tensor, largest_code, round};
pub use round::{quantize_rows, round_columns};
pub use scale::{Clipping, column_scales};

/// How the weights of a layer are rounded: symmetric, codes −2^(bits−1) to 2^(bits−1) − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightFormat {
    /// 2, 3, 4 or 8.
    pub bits: u8,
    /// Weights along the input channels that share a scale; `None`: all of an output channel.
    pub group_size: Option<usize>,
}

/// A weight in codes.
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    /// Of the shape of the weight, `INT8` for 8 bits and `INT4` for less: codes of 2 and 3 bits
    /// are stored in 4.
    pub codes: Tensor,
    /// f32: `[N]` for one scale per output channel, `[K / group_size, N]` for groups.
    pub scale: Tensor,
    /// Σ (w − scale · code)².
    pub squared_error: f64,
    /// Σ w².
    pub squared_norm: f64,
}

/// Why a weight can't be rounded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightError {
    /// An element that is infinite or not a number.
    #[error("has an element that is not a finite number")]
    NotFinite,
    /// Groups that do not make up the input channels, or columns that do not make up the weight.
    #[error("can't be divided into groups of {group_size} input channels")]
    GroupSize {
        /// The group size.
        group_size: usize,
    },
    /// A list with other than one element for each channel or scale.
    #[error("has {expected} {what}, but {actual} were given")]
    Length {
        /// What the list is about.
        what: &'static str,
        /// How many there are.
        expected: usize,
        /// How many were given.
        actual: usize,
    },
    /// A clip that is negative or no finite number.
    #[error("has the clip {0}, which is not a positive number")]
    Clip(f32),
}

/// Rounds a weight `[K, N]` of a linear layer, whose output channels are columns, to the nearest
/// codes. A group size must divide K.
///
/// # Errors
/// If an element is not finite, or something given does not fit the weight.
pub fn quantize_columns(
    weight: &[f32],
    n_columns: usize,
    format: WeightFormat,
    clipping: Clipping,
) -> Result<QuantizedWeight, WeightError> {
    let scales = column_scales(weight, n_columns, format, clipping)?;
    round_columns(weight, n_columns, format, scales)
}

impl WeightFormat {
    /// Groups of an output channel of `n_rows` input channels.
    ///
    /// # Errors
    /// If the group size does not divide them.
    pub fn n_groups(self, n_rows: usize) -> Result<usize, WeightError> {
        match self.group_size {
            None => Ok(1),
            Some(size) if size > 0 && n_rows.is_multiple_of(size) => Ok(n_rows / size),
            Some(group_size) => Err(WeightError::GroupSize { group_size }),
        }
    }

    /// The shape of the scales of `n_groups` groups a channel.
    fn scale_shape(self, n_groups: usize, n_columns: usize) -> Vec<usize> {
        if self.group_size.is_some() { vec![n_groups, n_columns] } else { vec![n_columns] }
    }
}

/// The scales as a tensor, `[N]` or `[K / group_size, N]`; checked to be as many as that.
pub(super) fn scale_tensor(
    scales: Vec<f32>,
    format: WeightFormat,
    n_rows: usize,
    n_columns: usize,
) -> Result<Tensor, WeightError> {
    let n_groups = format.n_groups(n_rows)?;
    check_length("scales", n_groups * n_columns, scales.len())?;
    Ok(Tensor::from_vec(&format.scale_shape(n_groups, n_columns), scales))
}

fn check_finite(weight: &[f32]) -> Result<(), WeightError> {
    if weight.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(WeightError::NotFinite) }
}

pub(super) fn check_length(
    what: &'static str,
    expected: usize,
    actual: usize,
) -> Result<(), WeightError> {
    if expected == actual { Ok(()) } else { Err(WeightError::Length { what, expected, actual }) }
}
