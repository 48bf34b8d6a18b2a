//! Fast forms for f32, i64 and bool.

use planish_ir::{DataType, Tensor};

use super::eval::result_dtype;
use super::loops::zip;
use crate::buffers::Buffer;
use crate::kernel::required;
use crate::op::EvalFn;
use crate::ops::common::broadcast;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::index::count;
use crate::ops::common::plan::Plan;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let eval: EvalFn = match op.node.op_type.as_str() {
        "Max" | "Min" => super::eval_variadic,
        _ => super::eval::eval,
    };
    Ok(Some(Box::new(Binary { fallback: Fallback::new(op, eval) })))
}

struct Binary {
    fallback: Fallback,
}

impl Kernel for Binary {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let op_type = self.fallback.op().node.op_type.as_str();
        let (a, b) = match inputs {
            [_, _] => (required(inputs, 0)?, required(inputs, 1)?),
            _ => return self.fallback.run(inputs),
        };
        let shape = broadcast::shapes(a.shape(), b.shape())?;
        let n = count(&shape)?;
        if n == 0 || a.dtype() != b.dtype() {
            return self.fallback.run(inputs);
        }
        let plan = Plan::new([a.shape(), b.shape()], &shape);
        let buffer = match a.dtype() {
            DataType::F32 => {
                let operands = (a.as_slice()?, b.as_slice()?);
                f32s(context, op_type, (&operands.0, &operands.1), (&plan, n))
            }
            DataType::I64 => {
                let operands = (a.as_slice()?, b.as_slice()?);
                i64s(context, op_type, (&operands.0, &operands.1), (&plan, n))
            }
            DataType::Bool => bools(context, op_type, (a.bytes(), b.bytes()), (&plan, n)),
            _ => None,
        };
        match buffer.transpose()? {
            Some(buffer) => Ok(vec![buffer.into_tensor(result_dtype(op_type, a.dtype()), shape)?]),
            None => self.fallback.run(inputs),
        }
    }
}

fn f32s(
    context: &CpuContext,
    op_type: &str,
    operands: (&[f32], &[f32]),
    plan: (&Plan<2>, usize),
) -> Option<Result<Buffer, OpError>> {
    Some(match op_type {
        "Add" => zip(context, operands, plan, |a, b| a + b),
        "Sub" => zip(context, operands, plan, |a, b| a - b),
        "Mul" => zip(context, operands, plan, |a, b| a * b),
        "Div" => zip(context, operands, plan, |a, b| a / b),
        "Pow" => power(context, operands, plan),
        "Max" => zip(context, operands, plan, |a, b| if a.is_nan() || a > b { a } else { b }),
        "Min" => zip(context, operands, plan, |a, b| if a.is_nan() || a < b { a } else { b }),
        _ => return comparison(context, op_type, operands, plan),
    })
}

/// Powers, the usual exponents without a call.
fn power(
    context: &CpuContext,
    (a, b): (&[f32], &[f32]),
    plan: (&Plan<2>, usize),
) -> Result<Buffer, OpError> {
    let operands = (a, b);
    match b {
        [2.0] => zip(context, operands, plan, |a, _| a * a),
        [3.0] => zip(context, operands, plan, |a, _| a * a * a),
        _ => zip(context, operands, plan, f32::powf),
    }
}

fn i64s(
    context: &CpuContext,
    op_type: &str,
    operands: (&[i64], &[i64]),
    plan: (&Plan<2>, usize),
) -> Option<Result<Buffer, OpError>> {
    Some(match op_type {
        "Add" => zip(context, operands, plan, i64::wrapping_add),
        "Sub" => zip(context, operands, plan, i64::wrapping_sub),
        "Mul" => zip(context, operands, plan, i64::wrapping_mul),
        "Div" if !operands.1.contains(&0) => zip(context, operands, plan, i64::wrapping_div),
        "Max" => zip(context, operands, plan, i64::max),
        "Min" => zip(context, operands, plan, i64::min),
        _ => return comparison(context, op_type, operands, plan),
    })
}

fn bools(
    context: &CpuContext,
    op_type: &str,
    operands: (&[u8], &[u8]),
    plan: (&Plan<2>, usize),
) -> Option<Result<Buffer, OpError>> {
    Some(match op_type {
        "And" => zip(context, operands, plan, |a, b| a & b),
        "Or" => zip(context, operands, plan, |a, b| a | b),
        "Xor" => zip(context, operands, plan, |a, b| a ^ b),
        "Equal" => zip(context, operands, plan, |a, b| (a == b) as u8),
        _ => return None,
    })
}

fn comparison<T: bytemuck::Pod + PartialOrd + Sync>(
    context: &CpuContext,
    op_type: &str,
    operands: (&[T], &[T]),
    plan: (&Plan<2>, usize),
) -> Option<Result<Buffer, OpError>> {
    Some(match op_type {
        "Equal" => zip(context, operands, plan, |a, b| (a == b) as u8),
        "Greater" => zip(context, operands, plan, |a, b| (a > b) as u8),
        "GreaterOrEqual" => zip(context, operands, plan, |a, b| (a >= b) as u8),
        "Less" => zip(context, operands, plan, |a, b| (a < b) as u8),
        "LessOrEqual" => zip(context, operands, plan, |a, b| (a <= b) as u8),
        _ => return None,
    })
}
