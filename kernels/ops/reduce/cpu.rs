//! The fast form: f32 over the last axes.

use planish_ir::{DataType, Tensor};

use super::{kept, reduced};
use crate::kernel::required;
use crate::ops::common::axes::list;
use crate::ops::common::fallback::Fallback;
use crate::ops::common::index::count;
use crate::ops::common::parallel::for_each_part_of;
use crate::{CpuContext, Kernel, OpError, OpNode};

/// Independent sums, so that they are computed in the lanes of a vector register.
const LANES: usize = 16;

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Reduce(Fallback::new(op, super::eval)))))
}

struct Reduce(Fallback);

impl Kernel for Reduce {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let op = self.0.op();
        let Some(row) = row_function(&op.node.op_type) else { return self.0.run(inputs) };
        let given = [None, inputs.get(1).copied().flatten().cloned()];
        let reduced = reduced(&op, list(&op, &given, 1, "axes")?, x.shape().len())?;
        if x.dtype() != DataType::F32 || x.n_elements() == 0 || !reduced.is_sorted() {
            return self.0.run(inputs);
        }
        let shape = kept(&op, x.shape(), &reduced, &1);
        let values = x.as_slice::<f32>()?;
        let n = count(&shape)?;
        let size = values.len() / n;
        let mut buffer = context.f32s(n)?;
        for_each_part_of(context, values.len(), buffer.as_mut::<f32>(), 1, |start, part| {
            for (out, values) in part.iter_mut().zip(values[start * size..].chunks(size)) {
                *out = row(values);
            }
        });
        Ok(vec![context.f32_tensor(buffer, shape)?])
    }
}

/// The reduction of one row, if it has a fast form.
fn row_function(op_type: &str) -> Option<fn(&[f32]) -> f32> {
    Some(match op_type {
        "ReduceMean" => |row| sum(row, |x| x) / row.len() as f32,
        "ReduceSum" => |row| sum(row, |x| x),
        "ReduceSumSquare" => |row| sum(row, |x| x * x),
        "ReduceL2" => |row| sum(row, |x| x * x).sqrt(),
        _ => return None,
    })
}

fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| f(*x)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += f(*x));
    }
    lanes.iter().sum::<f32>() + rest
}
