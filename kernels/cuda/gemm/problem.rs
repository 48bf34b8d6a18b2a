//! What a product is told.

use bytemuck::{Pod, Zeroable};

use crate::{DevicePtr, Element, GpuError, MoreOutput, PackedWeights};

/// out\[m, n\] = a_scale\[m\] · w_scale\[n\] · Σ_k codes\[m, k\]·w\[n, k\] (+ bias\[n\])
/// (+ residual\[m, n\]), with exact integer sums.
///
/// Before the residual is added, the value is rounded to the output's element type.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedGemm<'a> {
    /// Rows of the activations.
    pub rows: usize,
    /// Inputs.
    pub k: usize,
    /// int8 `[rows, k]`.
    pub codes: DevicePtr,
    /// Bits of the codes' range, 4 or 8: products of INT4 by INT4 may use 4-bit tensor cores.
    pub code_bits: u32,
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
    /// T `[rows, out_stride]`, of which N columns are written.
    pub out: DevicePtr,
    /// Elements from row to row of `out`.
    pub out_stride: usize,
    /// Up to three outputs more, for the columns from their starts on, multiples of 16; without a residual.
    pub more: &'a [MoreOutput],
    /// T.
    pub element: Element,
}

/// out\[m, n\] = Σ_k x\[m, k\]·w\[n, k\]·w_scale\[n\] (+ bias\[n\]) (+ residual\[m, n\]), with sums in
/// f32.
#[derive(Debug, Clone, Copy)]
pub struct WeightOnlyGemm<'a> {
    /// Rows of the activations.
    pub rows: usize,
    /// Inputs.
    pub k: usize,
    /// T `[rows, k]`.
    pub x: DevicePtr,
    /// The weights, `k` inputs.
    pub weights: &'a PackedWeights,
    /// f32 `[N]`, or `[k / block_size, N]`.
    pub w_scale: DevicePtr,
    /// As [`QuantizedGemm::block_size`].
    pub block_size: usize,
    /// T `[N]`.
    pub bias: Option<DevicePtr>,
    /// T `[rows, N]`; may be `out`.
    pub residual: Option<DevicePtr>,
    /// T `[rows, out_stride]`.
    pub out: DevicePtr,
    /// Elements from row to row of `out`.
    pub out_stride: usize,
    /// Up to three outputs more, for the columns from their starts on, multiples of 16; without a residual.
    pub more: &'a [MoreOutput],
    /// T.
    pub element: Element,
}

/// `Problem` of output.cuh.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Problem {
    a_scale: u64,
    w_scale: u64,
    bias: u64,
    residual: u64,
    out: u64,
    rows: i32,
    n: i32,
    k: i32,
    out_stride: i32,
    padded_n: i32,
    padded_k: i32,
    block_size: i32,
    unused: i32,
}

/// Outputs besides the first.
const MAX_MORE: usize = 3;

/// What goes to one output: columns of the product, with what is theirs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub start: usize,
    pub n: usize,
    pub w_scale: DevicePtr,
    pub bias: Option<DevicePtr>,
    pub out: DevicePtr,
    pub out_stride: usize,
}

/// The largest number of inputs whose sums of 16 times INT4 by INT8 stay inside 32 bits.
const MAX_K: usize = 131_072;

impl QuantizedGemm<'_> {
    pub(super) fn problem(&self) -> Result<Problem, GpuError> {
        if self.k > MAX_K {
            return Err(GpuError::unsupported(format!("a product of {} inputs", self.k)));
        }
        let a_scale = self.a_scale.0;
        Ok(Problem { a_scale, ..self.as_weight_only().problem()? })
    }

    /// The same but for the activations.
    pub(super) fn as_weight_only(&self) -> WeightOnlyGemm<'_> {
        WeightOnlyGemm {
            rows: self.rows,
            k: self.k,
            x: self.codes,
            weights: self.weights,
            w_scale: self.w_scale,
            block_size: self.block_size,
            bias: self.bias,
            residual: self.residual,
            out: self.out,
            out_stride: self.out_stride,
            more: self.more,
            element: self.element,
        }
    }
}

impl WeightOnlyGemm<'_> {
    /// The outputs, each with its share of the columns.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        let first = MoreOutput { start: 0, to: self.out, stride: self.out_stride };
        let ends = self.more.iter().map(|next| next.start).chain([self.weights.n]);
        std::iter::once(first).chain(self.more.iter().copied()).zip(ends).map(|(output, end)| {
            let MoreOutput { start, to, stride } = output;
            Part {
                start,
                n: end.saturating_sub(start),
                // Scales of blocks are there for a single product only.
                w_scale: self.w_scale.offset(4 * start),
                bias: self.bias.map(|bias| bias.offset(self.element.bytes() * start)),
                out: to,
                out_stride: stride,
            }
        })
    }

    pub(super) fn problem(&self) -> Result<Problem, GpuError> {
        let (weights, block) = (self.weights, self.block_size);
        let wrong = |what: String| Err(GpuError::unsupported(what));
        if weights.k != self.k {
            return wrong(format!("{} inputs for weights of {}", self.k, weights.k));
        }
        for part in self.parts() {
            if part.out_stride < part.n || part.n == 0 && !self.more.is_empty() {
                return wrong(format!("rows of {} for {} outputs", part.out_stride, part.n));
            }
        }
        if self.more.len() > MAX_MORE || !self.more.is_empty() && self.residual.is_some() {
            return wrong("a residual of several outputs, or too many outputs".to_owned());
        }
        if !block.is_multiple_of(32) || block > 0 && !self.k.is_multiple_of(block) {
            return wrong(format!("blocks of {block} inputs of {} with one scale", self.k));
        }
        let int = |size: usize| {
            i32::try_from(size)
                .map_err(|_| GpuError::unsupported(format!("{size} rows or columns")))
        };
        Ok(Problem {
            a_scale: 0,
            w_scale: self.w_scale.0,
            bias: self.bias.map_or(0, |p| p.0),
            residual: self.residual.map_or(0, |p| p.0),
            out: self.out.0,
            rows: int(self.rows)?,
            n: int(weights.n)?,
            k: int(self.k)?,
            out_stride: int(self.out_stride)?,
            padded_n: int(weights.padded_n)?,
            padded_k: int(weights.padded_k)?,
            block_size: int(block)?,
            unused: 0,
        })
    }
}
