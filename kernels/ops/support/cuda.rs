//! What the CUDA forms of operators share: kernels out of plain functions, and single steps on
//! tensors of the device.

use planish_cuda::Element;
use planish_cuda::elementwise::{self, Binary, Indices, Number, Unary};
use planish_ir::{DataType, Node, Tensor};

use crate::cuda_kernel::{Value, dtype_of};
use crate::ops::common::broadcast;
use crate::ops::common::strided::View;
use crate::{CudaContext, CudaInputs, CudaKernel, GpuTensor, OpError, OpNode};

pub(in crate::ops) type Outputs = Result<Vec<GpuTensor>, OpError>;
pub(in crate::ops) type Made = Result<Option<Box<dyn CudaKernel>>, OpError>;

/// What a node does on the device.
pub(in crate::ops) type RunFn = fn(&OpNode, &CudaContext, CudaInputs<'_>) -> Outputs;

struct Plain {
    node: Node,
    opset: i64,
    run: RunFn,
    on_host: &'static [usize],
}

/// A kernel that keeps nothing but its node; inputs at `on_host` are read in host memory.
pub(in crate::ops) fn kernel(op: &OpNode, run: RunFn, on_host: &'static [usize]) -> Made {
    Ok(Some(Box::new(Plain { node: op.node.clone(), opset: op.opset, run, on_host })))
}

impl CudaKernel for Plain {
    fn run(&self, context: &mut CudaContext, inputs: CudaInputs<'_>) -> Outputs {
        (self.run)(&OpNode { node: &self.node, opset: self.opset }, context, inputs)
    }

    fn reads_on_host(&self, index: usize) -> bool {
        self.on_host.contains(&index)
    }
}

/// How the kernels of `elementwise` name a type.
pub(in crate::ops) fn number(dtype: DataType) -> Result<Number, OpError> {
    Ok(match dtype {
        DataType::F32 => Number::F32,
        DataType::F16 => Number::F16,
        DataType::BF16 => Number::BF16,
        DataType::I64 => Number::I64,
        DataType::I32 => Number::I32,
        DataType::I8 => Number::I8,
        DataType::U8 => Number::U8,
        DataType::Bool => Number::Bool,
        other => {
            let message = format!("elements of type {other} are not computed with on the device");
            return Err(OpError::unsupported(message));
        }
    })
}

/// The type that `number` has in a graph.
fn dtype(number: Number) -> DataType {
    match number {
        Number::F32 => DataType::F32,
        Number::F16 => DataType::F16,
        Number::BF16 => DataType::BF16,
        Number::I64 => DataType::I64,
        Number::I32 => DataType::I32,
        Number::I8 => DataType::I8,
        Number::U8 => DataType::U8,
        Number::Bool => DataType::Bool,
    }
}

/// How a tensor of type `dtype` in the graph is stored.
pub(in crate::ops) fn stored(dtype: DataType, element: Element) -> DataType {
    if dtype.is_float() { dtype_of(element) } else { dtype }
}

/// The inputs in host memory, for functions that read lists of integers.
pub(in crate::ops) fn host_inputs(inputs: CudaInputs<'_>) -> Vec<Option<Tensor>> {
    let on_host = |value: &Option<Value>| match value {
        Some(Value::Host(tensor)) => Some(tensor.clone()),
        _ => None,
    };
    inputs.0.iter().map(on_host).collect()
}

/// Bytes of an element.
pub(in crate::ops) fn width(x: &GpuTensor) -> usize {
    x.dtype().bits() / 8
}

/// A list of indices.
pub(in crate::ops) fn indices(x: &GpuTensor) -> Result<Indices, OpError> {
    Ok(Indices::new(x.ptr(), number(x.dtype())?)?)
}

/// A tensor like `x`, its contents unspecified.
pub(in crate::ops) fn like(context: &CudaContext, x: &GpuTensor) -> Result<GpuTensor, OpError> {
    context.tensor(x.dtype(), x.shape().to_vec())
}

/// `a op b`, broadcast.
pub(in crate::ops) fn binary(
    context: &CudaContext,
    op: Binary,
    a: &GpuTensor,
    b: &GpuTensor,
) -> Result<GpuTensor, OpError> {
    let shape = broadcast::shapes(a.shape(), b.shape())?;
    if a.dtype() != b.dtype() {
        let (a, b) = (a.dtype(), b.dtype());
        return Err(OpError::unsupported(format!("the operands are of types {a} and {b}")));
    }
    let number = number(a.dtype())?;
    let y = context.tensor(dtype(op.result(number)), shape)?;
    let operand = |t: &'_ GpuTensor| t.ptr();
    let (left, right) = ((operand(a), a.shape()), (operand(b), b.shape()));
    elementwise::binary(context.gpu, op, number, left, right, (y.ptr(), y.shape()))?;
    Ok(y)
}

/// `op(x)`.
pub(in crate::ops) fn unary(
    context: &CudaContext,
    op: Unary,
    parameter: f32,
    x: &GpuTensor,
) -> Result<GpuTensor, OpError> {
    let number = number(x.dtype())?;
    let y = context.tensor(dtype(op.result(number)), x.shape().to_vec())?;
    let n = x.n_elements();
    elementwise::unary(context.gpu, op, parameter, number, x.ptr(), y.ptr(), n)?;
    Ok(y)
}

/// x in another type, as it is stored.
pub(in crate::ops) fn cast(
    context: &CudaContext,
    x: &GpuTensor,
    to: DataType,
) -> Result<GpuTensor, OpError> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    let y = context.tensor(to, x.shape().to_vec())?;
    let (from, to) = ((x.ptr(), number(x.dtype())?), (y.ptr(), number(to)?));
    elementwise::cast(context.gpu, from, to, x.n_elements())?;
    Ok(y)
}

/// The elements that `view` sees in x.
pub(in crate::ops) fn copy(
    context: &CudaContext,
    x: &GpuTensor,
    view: &View,
) -> Result<GpuTensor, OpError> {
    let y = context.tensor(x.dtype(), view.shape())?;
    let to = steps(y.shape());
    let axes = view.axes.iter().zip(to).map(|((size, step), to)| (*size, [*step as i64, to]));
    let from = x.ptr().offset(view.offset * width(x));
    elementwise::copy(context.gpu, width(x), from, y.ptr(), &axes.collect::<Vec<_>>())?;
    Ok(y)
}

/// x repeated to `shape`, which it broadcasts to.
pub(in crate::ops) fn expand(
    context: &CudaContext,
    x: &GpuTensor,
    shape: &[usize],
) -> Result<GpuTensor, OpError> {
    if shape.iter().product::<usize>() == x.n_elements() {
        return x.reshaped(shape.to_vec());
    }
    let steps = broadcast::strides(x.shape(), shape);
    let axes = shape.iter().zip(&steps).map(|(size, step)| (*size, *step as isize)).collect();
    copy(context, x, &View { offset: 0, axes })
}

/// Writes x into `y` from flat element `start` on, with `steps` of y along the axes of x.
pub(in crate::ops) fn put(
    context: &CudaContext,
    x: &GpuTensor,
    y: &GpuTensor,
    start: usize,
    to: &[i64],
) -> Result<(), OpError> {
    let axes = x.shape().iter().zip(steps(x.shape())).zip(to);
    let axes: Vec<_> = axes.map(|((size, from), to)| (*size, [from, *to])).collect();
    let at = y.ptr().offset(start * width(x));
    Ok(elementwise::copy(context.gpu, width(x), x.ptr(), at, &axes)?)
}

/// Row-major steps.
pub(in crate::ops) fn steps(shape: &[usize]) -> Vec<i64> {
    crate::ops::common::index::strides(shape).into_iter().map(|step| step as i64).collect()
}

/// A copy of x that may be written to.
pub(in crate::ops) fn duplicate(
    context: &CudaContext,
    x: &GpuTensor,
) -> Result<GpuTensor, OpError> {
    let y = like(context, x)?;
    put(context, x, &y, 0, &steps(x.shape()))?;
    Ok(y)
}
