//! Fast casts between f32, i64, i32 and bool, and from and to f16 and bf16.

use bytemuck::Pod;
use half::{bf16, f16};
use planish_ir::tensor::Element;
use planish_ir::{DataType, Tensor};

use super::target;
use crate::kernel::required;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::parallel::for_each_part;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Cast { fallback: Fallback::new(op, super::eval) })))
}

struct Cast {
    fallback: Fallback,
}

impl Kernel for Cast {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        use DataType::{BF16, Bool, F16, F32, I32, I64};
        let x = required(inputs, 0)?;
        let to = target(&self.fallback.op(), inputs.get(1).copied().flatten())?;
        let tensor = match (x.dtype(), to) {
            (from, to) if from == to => x.clone(),
            (F32, I64) => map::<f32, i64>(context, x, to, |x| x as i64)?,
            (F32, I32) => map::<f32, i32>(context, x, to, |x| x as i32)?,
            (F32, Bool) => map::<f32, u8>(context, x, to, |x| u8::from(x != 0.0))?,
            (F32, F16) => map::<f32, f16>(context, x, to, f16::from_f32)?,
            (F32, BF16) => map::<f32, bf16>(context, x, to, bf16::from_f32)?,
            (F16, F32) => map::<f16, f32>(context, x, to, f16::to_f32)?,
            (BF16, F32) => map::<bf16, f32>(context, x, to, bf16::to_f32)?,
            (I64, F32) => map::<i64, f32>(context, x, to, |x| x as f32)?,
            (I64, I32) => map::<i64, i32>(context, x, to, |x| x as i32)?,
            (I64, Bool) => map::<i64, u8>(context, x, to, |x| u8::from(x != 0))?,
            (I32, F32) => map::<i32, f32>(context, x, to, |x| x as f32)?,
            (I32, I64) => map::<i32, i64>(context, x, to, i64::from)?,
            (Bool, F32) => map::<u8, f32>(context, x, to, f32::from)?,
            (Bool, I64) => map::<u8, i64>(context, x, to, i64::from)?,
            _ => return self.fallback.run(inputs),
        };
        Ok(vec![tensor])
    }
}

fn map<T: Element, U: Pod + Send>(
    context: &CpuContext,
    x: &Tensor,
    dtype: DataType,
    f: impl Fn(T) -> U + Sync,
) -> Result<Tensor, OpError> {
    let values = x.as_slice::<T>()?;
    let mut buffer = context.buffers.take_for::<U>(values.len())?;
    for_each_part(context, buffer.as_mut::<U>(), 1, |start, part| {
        for (out, value) in part.iter_mut().zip(&values[start..]) {
            *out = f(*value);
        }
    });
    Ok(buffer.into_tensor(dtype, x.shape().to_vec())?)
}
