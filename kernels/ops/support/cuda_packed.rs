//! Products with packed weights on the device: by the kernels for few rows (decoding) or many
//! (prefill).

use planish_cuda::gemm::{Gemm, QuantizedGemm, WeightOnlyGemm, suits_rows};
use planish_cuda::gemv::{Gemv, QuantizedGemv, WeightOnlyGemv};
use planish_cuda::{DeviceBuffer, DevicePtr, MoreOutput, PackedWeights, WeightOrder};
use planish_ir::{DataType, Tensor};

use super::cuda_held::{check_element, with_last};
use crate::op::required;
use crate::{CudaContext, CudaPrepare, GpuTensor, OpError};

/// Most rows that the kernels for few rows take.
const FEW: usize = 64;
/// Most products that share a launch.
pub(in crate::ops) const TOGETHER: usize = 4;

/// Weights of one or more products of the same input, packed side by side, and their scales.
pub(in crate::ops) struct PackedProducts {
    weights: PackedWeights,
    /// f32 `[N]` or `[K / block_size, N]`.
    scales: DeviceBuffer,
    block_size: usize,
    /// First output and number of outputs of each product.
    parts: Vec<(usize, usize)>,
    gemv: Gemv,
    gemm: Gemm,
}

/// Where products go.
#[derive(Clone, Copy)]
struct Outputs<'a> {
    out: DevicePtr,
    out_stride: usize,
    more: &'a [MoreOutput],
}

/// What is multiplied.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Left<'a> {
    /// Codes and their scales.
    Codes(&'a GpuTensor, &'a GpuTensor),
    /// Floats.
    Floats(&'a GpuTensor),
}

impl Left<'_> {
    fn tensor(&self) -> &GpuTensor {
        match self {
            Self::Codes(x, _) | Self::Floats(x) => x,
        }
    }
}

impl PackedProducts {
    /// Packs weights and scales, constants in pairs. `None` where they are no constants, or of
    /// sizes that the kernels do not take.
    pub fn new(
        prepare: &CudaPrepare<'_>,
        pairs: &[[Option<Tensor>; 2]],
        block_size: usize,
        order: WeightOrder,
    ) -> Result<Option<Self>, OpError> {
        if pairs.iter().flatten().any(Option::is_none) || pairs.is_empty() {
            return Ok(None);
        }
        let (bits, k) = match kind(&pairs[0], order)? {
            (DataType::I4, k, _) => (4, k),
            (DataType::I8, k, _) => (8, k),
            _ => return Ok(None),
        };
        let mut parts = Vec::new();
        let mut n: usize = 0;
        for pair in pairs {
            let (dtype, its_k, its_n) = kind(pair, order)?;
            // A product of its own starts at a tile.
            if its_k != k || dtype != kind(&pairs[0], order)?.0 || !n.is_multiple_of(16) {
                return Ok(None);
            }
            parts.push((n, its_n));
            n += its_n;
        }
        let fits = block_size == 0 || block_size.is_multiple_of(32) && k.is_multiple_of(block_size);
        if !fits || parts.len() > TOGETHER || (block_size > 0 && parts.len() > 1) {
            return Ok(None);
        }
        let weights = PackedWeights::zeroed(prepare.gpu, bits, k, n)?;
        let mut scales = Vec::new();
        for (pair, (start, n)) in pairs.iter().zip(&parts) {
            weights.fill(prepare.gpu, required(pair, 0)?.bytes(), *start, *n, order)?;
            let scale = required(pair, 1)?.to_f32_vec()?;
            if scale.len() != n * k.checked_div(block_size).unwrap_or(1) {
                return Err(OpError::shape("the weights and scales do not go together"));
            }
            scales.extend(scale);
        }
        let scales = prepare.gpu.upload(&scales)?;
        let (gemv, gemm) = (Gemv::new(), Gemm::new());
        Ok(Some(Self { weights, scales, block_size, parts, gemv, gemm }))
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.scales.len()
    }

    /// All products of `left`, plus a bias or a residual where there is only one.
    pub fn run(
        &self,
        context: &CudaContext,
        left: Left<'_>,
        bias: Option<&GpuTensor>,
        residual: Option<&GpuTensor>,
    ) -> Result<Vec<GpuTensor>, OpError> {
        let x = left.tensor();
        self.check(context, left, [bias, residual])?;
        let outputs = self.parts.iter().map(|(_, n)| context.floats(with_last(x, *n)));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let (bias, residual) = (bias.map(GpuTensor::ptr), residual.map(GpuTensor::ptr));
        let more = self.parts.iter().zip(&outputs).skip(1);
        let more: Vec<MoreOutput> = more
            .map(|((start, n), to)| MoreOutput { start: *start, to: to.ptr(), stride: *n })
            .collect();
        let to = Outputs { out: outputs[0].ptr(), out_stride: self.parts[0].1, more: &more };
        match self.suits_few(context, left) {
            true => self.few(context, left, bias, residual, to)?,
            false => self.many(context, left, bias, residual, to)?,
        }
        Ok(outputs)
    }

    /// Whether the kernels for few rows are the faster ones.
    fn suits_few(&self, context: &CudaContext, left: Left<'_>) -> bool {
        let rows = left.tensor().rows();
        let suits_many = |(_, n): &(usize, usize)| {
            matches!(left, Left::Codes(..))
                && self.block_size == 0
                && suits_rows(context.gpu.properties(), rows, *n)
        };
        rows <= FEW && !self.parts.iter().all(suits_many)
    }

    fn check(
        &self,
        context: &CudaContext,
        left: Left<'_>,
        added: [Option<&GpuTensor>; 2],
    ) -> Result<(), OpError> {
        let x = left.tensor();
        let (rows, n) = (x.rows(), self.weights.n);
        let fits = match left {
            Left::Codes(codes, scale) => {
                codes.dtype() == DataType::I8
                    && scale.dtype() == DataType::F32
                    && scale.n_elements() == rows
            }
            Left::Floats(x) => check_element(x, context.element).is_ok(),
        };
        if !fits || x.last() != self.weights.k {
            let (dtype, shape) = (x.dtype(), x.shape());
            let k = self.weights.k;
            return Err(OpError::shape(format!("{dtype} {shape:?} for weights of {k} inputs")));
        }
        let sizes = [n, rows * n];
        for (tensor, size) in added.into_iter().zip(sizes) {
            let Some(tensor) = tensor else { continue };
            check_element(tensor, context.element)?;
            if tensor.n_elements() != size || self.parts.len() != 1 {
                let shape = tensor.shape();
                return Err(OpError::shape(format!("{shape:?} can't be added to {rows} by {n}")));
            }
        }
        Ok(())
    }

    fn few(
        &self,
        context: &CudaContext,
        left: Left<'_>,
        bias: Option<DevicePtr>,
        residual: Option<DevicePtr>,
        Outputs { out, out_stride, more }: Outputs<'_>,
    ) -> Result<(), OpError> {
        let (rows, k, element) = (left.tensor().rows(), self.weights.k, context.element);
        let (weights, w_scale, block_size) = (&self.weights, self.scales.ptr(), self.block_size);
        match left {
            Left::Codes(codes, scale) => {
                let (codes, a_scale) = (codes.ptr(), scale.ptr());
                let product = QuantizedGemv {
                    rows,
                    k,
                    codes,
                    a_scale,
                    weights,
                    w_scale,
                    block_size,
                    bias,
                    residual,
                    out,
                    out_stride,
                    more,
                    element,
                };
                self.gemv.quantized(context.gpu, &product)?;
            }
            Left::Floats(x) => {
                let x = x.ptr();
                let product = WeightOnlyGemv {
                    rows,
                    k,
                    x,
                    weights,
                    w_scale,
                    block_size,
                    bias,
                    residual,
                    out,
                    out_stride,
                    more,
                    element,
                };
                self.gemv.weight_only(context.gpu, &product)?;
            }
        }
        Ok(())
    }

    fn many(
        &self,
        context: &CudaContext,
        left: Left<'_>,
        bias: Option<DevicePtr>,
        residual: Option<DevicePtr>,
        Outputs { out, out_stride, more }: Outputs<'_>,
    ) -> Result<(), OpError> {
        let (rows, k, element) = (left.tensor().rows(), self.weights.k, context.element);
        let (weights, w_scale, block_size) = (&self.weights, self.scales.ptr(), self.block_size);
        match left {
            Left::Codes(codes, scale) => {
                let (codes, a_scale, code_bits) = (codes.ptr(), scale.ptr(), 8);
                let product = QuantizedGemm {
                    rows,
                    k,
                    codes,
                    code_bits,
                    a_scale,
                    weights,
                    w_scale,
                    block_size,
                    bias,
                    residual,
                    out,
                    out_stride,
                    more,
                    element,
                };
                self.gemm.quantized(context.gpu, &product)?;
            }
            Left::Floats(x) => {
                let x = x.ptr();
                let product = WeightOnlyGemm {
                    rows,
                    k,
                    x,
                    weights,
                    w_scale,
                    block_size,
                    bias,
                    residual,
                    out,
                    out_stride,
                    more,
                    element,
                };
                self.gemm.weight_only(context.gpu, &product)?;
            }
        }
        Ok(())
    }
}

/// Type, inputs and outputs of a weight.
fn kind(
    pair: &[Option<Tensor>; 2],
    order: WeightOrder,
) -> Result<(DataType, usize, usize), OpError> {
    let weight = required(pair, 0)?;
    match (weight.shape(), order) {
        (&[k, n], WeightOrder::Kn) | (&[n, k], WeightOrder::Nk) => Ok((weight.dtype(), k, n)),
        (shape, _) => Err(OpError::shape(format!("a weight must be a matrix, not {shape:?}"))),
    }
}
