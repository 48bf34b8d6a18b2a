//! Integer weights packed for the fast kernels.

use planish_cpu::{PackedWeights, WeightLayout, WeightSpec};
use planish_ir::{DataType, Tensor};

use crate::OpError;

/// Rows and columns of a weight `[K, N]`, or `[N, K]` if `transposed`.
pub(in crate::ops) fn sizes(w: &Tensor, transposed: bool) -> Result<(usize, usize), OpError> {
    match *w.shape() {
        [n, k] if transposed => Ok((k, n)),
        [k, n] => Ok((k, n)),
        ref shape => Err(OpError::shape(format!("a weight must be a matrix, not {shape:?}"))),
    }
}

/// Packs an INT4 or INT8 weight. `group` is the number of rows of K that share a scale; the
/// scales are `[N]` without, `[K / group, N]` with it.
pub(in crate::ops) fn pack(
    w: &Tensor,
    scales: &Tensor,
    transposed: bool,
    group: Option<usize>,
) -> Result<PackedWeights, OpError> {
    let (k, n) = sizes(w, transposed)?;
    if group.is_some_and(|group| group == 0 || k % group != 0) {
        return Err(OpError::shape(format!("{k} rows are no whole number of blocks")));
    }
    let layout = if transposed { WeightLayout::Nk } else { WeightLayout::Kn };
    let scales = scales.to_f32_vec()?;
    let spec = WeightSpec { k, n, layout, scales: &scales, group };
    let packed = match w.dtype() {
        DataType::I4 => PackedWeights::pack_int4(w.bytes(), spec),
        DataType::I8 => PackedWeights::pack_int8(&w.as_slice::<i8>()?, spec),
        other => return Err(OpError::unsupported(format!("a weight can't be {other}"))),
    };
    packed.map_err(|error| OpError::shape(error.to_string()))
}
