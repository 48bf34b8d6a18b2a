//! Fast forms for f32, i64 and bool.

use bytemuck::Pod;
use planish_cpu::{Isa, ThreadPool};
use planish_ir::{DataType, Tensor};

use super::is_test;
use crate::buffers::Buffer;
use crate::kernel::required;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::parallel::for_each_part;
use crate::{CpuContext, Kernel, OpError, OpNode};

/// Where the exponential of the vector functions neither saturates nor rounds to 0.
const FAST_RANGE: f32 = 80.0;
/// Elements that are checked together.
const CHUNK: usize = 256;

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Unary { fallback: Fallback::new(op, super::eval::eval) })))
}

struct Unary {
    fallback: Fallback,
}

impl Kernel for Unary {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let op = self.fallback.op();
        let op_type = op.node.op_type.as_str();
        let buffer = match x.dtype() {
            DataType::F32 => f32s(context, &op, &x.as_slice::<f32>()?),
            DataType::I64 if op_type == "Neg" => {
                Some(map(context, &x.as_slice::<i64>()?, i64::wrapping_neg))
            }
            DataType::Bool if op_type == "Not" => Some(map(context, x.bytes(), |x| x ^ 1)),
            _ => None,
        };
        let Some(buffer) = buffer.transpose()? else { return self.fallback.run(inputs) };
        let dtype = if is_test(op_type) { DataType::Bool } else { x.dtype() };
        Ok(vec![buffer.into_tensor(dtype, x.shape().to_vec())?])
    }
}

fn map<T: Pod + Sync, U: Pod + Send>(
    context: &CpuContext,
    x: &[T],
    f: impl Fn(T) -> U + Sync,
) -> Result<Buffer, OpError> {
    let mut buffer = context.buffers.take_for::<U>(x.len())?;
    for_each_part(context, buffer.as_mut::<U>(), 1, |start, part| {
        for (out, x) in part.iter_mut().zip(&x[start..]) {
            *out = f(*x);
        }
    });
    Ok(buffer)
}

/// `fast` on all elements, then `exact` on those beyond its range, NaN among them.
fn vector(
    context: &CpuContext,
    x: &[f32],
    fast: fn(&ThreadPool, Isa, &[f32], &mut [f32]),
    exact: fn(f32) -> f32,
) -> Result<Buffer, OpError> {
    let mut buffer = context.f32s(x.len())?;
    let out = buffer.as_mut::<f32>();
    fast(context.pool, Isa::best(), x, out);
    let is_within = |x: &f32| x.abs() < FAST_RANGE;
    for (x, out) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
        // Without a branch for each element, so that the usual case is a vector loop.
        if x.iter().filter(|x| is_within(x)).count() < x.len() {
            let beyond = x.iter().zip(out).filter(|(x, _)| !is_within(x));
            beyond.for_each(|(x, out)| *out = exact(*x));
        }
    }
    Ok(buffer)
}

fn f32s(context: &CpuContext, op: &OpNode, x: &[f32]) -> Option<Result<Buffer, OpError>> {
    Some(match op.node.op_type.as_str() {
        "Neg" => map(context, x, |x| -x),
        "Abs" => map(context, x, f32::abs),
        "Sqrt" => map(context, x, f32::sqrt),
        "Reciprocal" => map(context, x, f32::recip),
        "Exp" => vector(context, x, planish_cpu::exp, f32::exp),
        "Log" => map(context, x, f32::ln),
        "Erf" => map(context, x, |x| super::erf::erf(f64::from(x)) as f32),
        "Tanh" => vector(context, x, planish_cpu::tanh, f32::tanh),
        "Sigmoid" => vector(context, x, planish_cpu::sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        "Relu" => map(context, x, |x| if x < 0.0 { 0.0 } else { x }),
        "LeakyRelu" => {
            let alpha = op.node.float("alpha", 0.01);
            map(context, x, |x| if x < 0.0 { alpha * x } else { x })
        }
        "Cos" => map(context, x, f32::cos),
        "Sin" => map(context, x, f32::sin),
        "IsNaN" => map(context, x, |x| u8::from(x.is_nan())),
        _ => return None,
    })
}
