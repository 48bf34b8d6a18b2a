//! The fast form of `Gather`: rows of bytes.

use planish_ir::Tensor;

use super::rows::gathered;
use crate::kernel::required;
use crate::ops::common::axes::axis;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::index::{around, count, wrap};
use crate::ops::common::parallel::for_each_part;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Gather(Fallback::new(op, super::rows::eval)))))
}

struct Gather(Fallback);

impl Kernel for Gather {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
        let bits = data.dtype().bits();
        if bits == 0 || bits % 8 != 0 {
            return self.0.run(inputs);
        }
        let axis = axis(self.0.op().node.int("axis", 0), data.shape().len())?;
        let (_, size, inner) = around(data.shape(), axis)?;
        let list = indices.to_i64_vec()?;
        let list: Vec<usize> = list.iter().map(|i| wrap(*i, size)).collect::<Result<_, _>>()?;
        let shape = gathered(data.shape(), indices.shape(), axis);
        let (bytes, row) = (data.bytes(), inner * bits / 8);
        let mut buffer = context.buffers.take(count(&shape)? * bits / 8)?;
        if row > 0 && !list.is_empty() {
            for_each_part(context, buffer.as_mut::<u8>(), row, |start, part| {
                for (i, out) in part.chunks_mut(row).enumerate() {
                    let at = start / row + i;
                    let from = (at / list.len() * size + list[at % list.len()]) * row;
                    out.copy_from_slice(&bytes[from..from + row]);
                }
            });
        }
        Ok(vec![buffer.into_tensor(data.dtype(), shape)?])
    }
}
