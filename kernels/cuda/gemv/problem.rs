//! What is to be multiplied.

use crate::{DevicePtr, Element, GpuError, MoreOutput, PackedWeights};

/// planish's `QuantizedMatMul` and `BlockQuantizedMatMul` (and `QuantizedMatMulN` as one product of
/// weights side by side): `a_scale · w_scale · (codes · W)`, plus bias and residual.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedGemv<'a> {
    /// Rows of the activations; made for 1 to 64.
    pub rows: usize,
    /// Inputs.
    pub k: usize,
    /// int8 `[rows, k]`.
    pub codes: DevicePtr,
    /// f32 `[rows]`.
    pub a_scale: DevicePtr,
    /// The weights, `k` inputs.
    pub weights: &'a PackedWeights,
    /// f32 `[N]`, or `[k / block_size, N]`.
    pub w_scale: DevicePtr,
    /// Inputs that share a scale, a multiple of 32 that divides k; 0 for one scale an output.
    pub block_size: usize,
    /// T `[N]`.
    pub bias: Option<DevicePtr>,
    /// T `[rows, N]`; may be `out`.
    pub residual: Option<DevicePtr>,
    /// T `[rows, out_stride]`.
    pub out: DevicePtr,
    /// Elements from row to row of `out`.
    pub out_stride: usize,
    /// Up to three outputs more, for the columns from their starts on.
    pub more: &'a [MoreOutput],
    /// T.
    pub element: Element,
}

/// planish's `WeightOnlyMatMul`: `x · (W · w_scale)`, plus bias and residual. Products are exact
/// whatever T is, sums are f32.
#[derive(Debug, Clone, Copy)]
pub struct WeightOnlyGemv<'a> {
    /// Rows of the activations; made for 1 to 64.
    pub rows: usize,
    /// Inputs.
    pub k: usize,
    /// T `[rows, k]`.
    pub x: DevicePtr,
    /// The weights, `k` inputs.
    pub weights: &'a PackedWeights,
    /// f32 `[N]`, or `[k / block_size, N]`.
    pub w_scale: DevicePtr,
    /// As [`QuantizedGemv::block_size`].
    pub block_size: usize,
    /// T `[N]`.
    pub bias: Option<DevicePtr>,
    /// T `[rows, N]`; may be `out`.
    pub residual: Option<DevicePtr>,
    /// T `[rows, out_stride]`.
    pub out: DevicePtr,
    /// Elements from row to row of `out`.
    pub out_stride: usize,
    /// Up to three outputs more, for the columns from their starts on.
    pub more: &'a [MoreOutput],
    /// T.
    pub element: Element,
}

/// planish's `Linear`: `x · W`, plus bias and residual, all of one type, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct DenseGemv {
    /// Rows of the activations; made for 1 to 8.
    pub rows: usize,
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// T `[rows, k]`.
    pub x: DevicePtr,
    /// T `[k, n]`, or `[n, k]` where `trans_b`.
    pub w: DevicePtr,
    /// The weight is stored outputs by inputs.
    pub trans_b: bool,
    /// T `[n]`.
    pub bias: Option<DevicePtr>,
    /// T `[rows, n]`; may be `out`.
    pub residual: Option<DevicePtr>,
    /// T `[rows, out_stride]`.
    pub out: DevicePtr,
    /// Elements from row to row of `out`.
    pub out_stride: usize,
    /// T.
    pub element: Element,
}

/// A product with packed weights, of codes or floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    pub rows: usize,
    pub k: usize,
    pub x: DevicePtr,
    /// There with int8 codes alone.
    pub x_scale: Option<DevicePtr>,
    pub weights: &'a PackedWeights,
    pub w_scale: DevicePtr,
    pub block_size: usize,
    pub bias: Option<DevicePtr>,
    pub residual: Option<DevicePtr>,
    pub out: DevicePtr,
    pub out_stride: usize,
    pub more: &'a [MoreOutput],
    pub element: Element,
}

impl<'a> From<&QuantizedGemv<'a>> for Packed<'a> {
    fn from(p: &QuantizedGemv<'a>) -> Self {
        Self {
            rows: p.rows,
            k: p.k,
            x: p.codes,
            x_scale: Some(p.a_scale),
            weights: p.weights,
            w_scale: p.w_scale,
            block_size: p.block_size,
            bias: p.bias,
            residual: p.residual,
            out: p.out,
            out_stride: p.out_stride,
            more: p.more,
            element: p.element,
        }
    }
}

impl<'a> From<&WeightOnlyGemv<'a>> for Packed<'a> {
    fn from(p: &WeightOnlyGemv<'a>) -> Self {
        Self {
            rows: p.rows,
            k: p.k,
            x: p.x,
            x_scale: None,
            weights: p.weights,
            w_scale: p.w_scale,
            block_size: p.block_size,
            bias: p.bias,
            residual: p.residual,
            out: p.out,
            out_stride: p.out_stride,
            more: p.more,
            element: p.element,
        }
    }
}

/// Largest k whose sums of 16 · int4 · int8 (or int8 · int8) fit 32 bits.
const MAX_K: usize = 131_000;

impl Packed<'_> {
    /// Bytes of an activation in memory.
    pub fn x_bytes(&self) -> usize {
        if self.x_scale.is_some() { 1 } else { self.element.bytes() }
    }

    /// Bytes of an activation in shared memory.
    pub fn column_bytes(&self) -> usize {
        if self.x_scale.is_some() { 1 } else { 2 }
    }

    /// Columns of a tensor-core operand that a row takes: an f32 is three bf16.
    pub fn columns_a_row(&self) -> usize {
        if self.x_scale.is_none() && self.element == Element::F32 { 3 } else { 1 }
    }

    /// Inputs of a sum on its own in the kernels: 0 (all), 32 or 64.
    pub fn group(&self) -> u32 {
        match self.block_size {
            0 => 0,
            size if size.is_multiple_of(64) => 64,
            _ => 32,
        }
    }

    /// # Errors
    /// Sizes that do not go together.
    pub fn check(&self) -> Result<(), GpuError> {
        let (k, n, size) = (self.k, self.weights.n, self.block_size);
        let refuse = |why: String| Err(GpuError::unsupported(why));
        if k != self.weights.k {
            return refuse(format!("{k} inputs for weights of {}", self.weights.k));
        }
        if size > 0 && (!size.is_multiple_of(32) || !k.is_multiple_of(size)) {
            return refuse(format!("blocks of {size} for {k} inputs: multiples of 32 are needed"));
        }
        if k > MAX_K || n > i32::MAX as usize / 64 {
            return refuse(format!("a product of {k} inputs and {n} outputs"));
        }
        let starts: Vec<usize> =
            [0].into_iter().chain(self.more.iter().map(|more| more.start)).collect();
        if starts.len() > 4 || !starts.is_sorted_by(|a, b| a < b) {
            return refuse(format!("outputs that start at the columns {starts:?}"));
        }
        let widths = starts.iter().zip(starts[1..].iter().chain([&n]));
        let strides = [self.out_stride].into_iter().chain(self.more.iter().map(|more| more.stride));
        for ((start, end), stride) in widths.zip(strides) {
            if *end <= *start || end - start > stride {
                return refuse(format!("columns {start} to {end} for rows of {stride}"));
            }
        }
        Ok(())
    }
}

impl DenseGemv {
    /// # Errors
    /// Sizes that do not go together.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        let &Self { k, n, out_stride, .. } = self;
        let too_large = k > i32::MAX as usize / 64 || n > i32::MAX as usize / 64;
        if k == 0 || n == 0 || too_large || out_stride < n {
            let why = format!("a product of {k} inputs and {n} outputs in rows of {out_stride}");
            return Err(GpuError::unsupported(why));
        }
        Ok(())
    }
}
