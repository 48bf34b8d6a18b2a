//! The fast form: blocks of bytes.

use planish_ir::Tensor;

use super::joined;
use crate::kernel::required;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::index::{around, count};
use crate::ops::common::parallel::for_each_part;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Concat(Fallback::new(op, super::eval)))))
}

struct Concat(Fallback);

impl Kernel for Concat {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let tensors: Vec<&Tensor> =
            (0..inputs.len()).map(|i| required(inputs, i)).collect::<Result<_, _>>()?;
        let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
        let (axis, shape) = joined(&self.0.op(), &shapes)?;
        let dtype = tensors[0].dtype();
        let is_plain = dtype.bits() > 0 && dtype.bits().is_multiple_of(8);
        if !is_plain || tensors.iter().any(|t| t.dtype() != dtype) {
            return self.0.run(inputs);
        }
        let width = dtype.bits() / 8;
        let mut blocks: Vec<(usize, &[u8])> = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            let (_, size, inner) = around(tensor.shape(), axis)?;
            blocks.push((size * inner * width, tensor.bytes()));
        }
        blocks.retain(|(n, _)| *n > 0);
        let mut buffer = context.buffers.take(count(&shape)? * width)?;
        let row: usize = blocks.iter().map(|(n, _)| n).sum();
        for_each_part(context, buffer.as_mut::<u8>(), row, |start, part| {
            for (i, mut out) in part.chunks_mut(row.max(1)).enumerate() {
                let index = start / row + i;
                for (n, bytes) in &blocks {
                    let (block, rest) = out.split_at_mut(*n);
                    block.copy_from_slice(&bytes[index * n..(index + 1) * n]);
                    out = rest;
                }
            }
        });
        Ok(vec![buffer.into_tensor(dtype, shape)?])
    }
}
