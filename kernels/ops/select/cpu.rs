//! The fast form, for elements of whole bytes up to 8.

use bytemuck::Pod;
use planish_ir::{DataType, Tensor};

use crate::buffers::Buffer;
use crate::kernel::required;
use crate::ops::common::broadcast;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::index::count;
use crate::ops::common::parallel::for_each_part;
use crate::ops::common::plan::Plan;
use crate::ops::common::strided::elements;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Where { fallback: Fallback::new(op, super::eval) })))
}

struct Where {
    fallback: Fallback,
}

impl Kernel for Where {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let condition = required(inputs, 0)?;
        let (x, y) = (required(inputs, 1)?, required(inputs, 2)?);
        let shape = broadcast::shapes(condition.shape(), x.shape())?;
        let shape = broadcast::shapes(&shape, y.shape())?;
        let n = count(&shape)?;
        if n == 0 || condition.dtype() != DataType::Bool || x.dtype() != y.dtype() {
            return self.fallback.run(inputs);
        }
        let plan = Plan::new([condition.shape(), x.shape(), y.shape()], &shape);
        let buffer = match x.dtype().bits() {
            8 => select::<u8>(context, condition, (x, y), (&plan, n))?,
            16 => select::<u16>(context, condition, (x, y), (&plan, n))?,
            32 => select::<u32>(context, condition, (x, y), (&plan, n))?,
            64 => select::<u64>(context, condition, (x, y), (&plan, n))?,
            _ => return self.fallback.run(inputs),
        };
        Ok(vec![buffer.into_tensor(x.dtype(), shape)?])
    }
}

fn select<T: Pod + Send + Sync>(
    context: &CpuContext,
    condition: &Tensor,
    (x, y): (&Tensor, &Tensor),
    (plan, n): (&Plan<3>, usize),
) -> Result<Buffer, OpError> {
    let (truths, x, y) = (condition.bytes(), elements::<T>(x), elements::<T>(y));
    let mut buffer = context.buffers.take_for::<T>(n)?;
    for_each_part(context, buffer.as_mut::<T>(), 1, |start, part| {
        plan.walk(start, part.len(), |at, len, [c, i, j]| {
            let out = &mut part[at..at + len];
            match plan.steps {
                [1, 0, 1] => {
                    let x = x[i];
                    let operands = truths[c..].iter().zip(&y[j..]);
                    let pick = |c: &u8, y: &T| if *c != 0 { x } else { *y };
                    out.iter_mut().zip(operands).for_each(|(o, (c, y))| *o = pick(c, y));
                }
                [1, 1, 0] => {
                    let y = y[j];
                    let operands = truths[c..].iter().zip(&x[i..]);
                    let pick = |c: &u8, x: &T| if *c != 0 { *x } else { y };
                    out.iter_mut().zip(operands).for_each(|(o, (c, x))| *o = pick(c, x));
                }
                [cs, xs, ys] => {
                    for (k, o) in out.iter_mut().enumerate() {
                        *o = if truths[c + k * cs] != 0 { x[i + k * xs] } else { y[j + k * ys] };
                    }
                }
            }
        });
    });
    Ok(buffer)
}
