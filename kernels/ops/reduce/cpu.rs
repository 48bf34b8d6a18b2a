//! The fast form: f32 over the last axes, or sums over the first ones.

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
        let op_type = op.node.op_type.as_str();
        let row = row_function(op_type);
        if row.is_none() && op_type != "ReduceMax" {
            return self.0.run(inputs);
        }
        let given = [None, inputs.get(1).copied().flatten().cloned()];
        let reduced = reduced(&op, list(&op, &given, 1, "axes")?, x.shape().len())?;
        if x.dtype() != DataType::F32 || x.n_elements() == 0 {
            return self.0.run(inputs);
        }
        let shape = kept(&op, x.shape(), &reduced, &1);
        let values = x.as_slice::<f32>()?;
        let n = count(&shape)?;
        let size = values.len() / n;
        let mut buffer = context.f32s(n)?;
        if !reduced.is_sorted() {
            let is_first = reduced.iter().rev().is_sorted();
            if op_type == "ReduceMax" && is_first {
                let out = buffer.as_mut::<f32>();
                for_each_part_of(context, values.len(), out, LANES, |start, part| {
                    largest_of_columns(&values, n, start, part);
                });
                return Ok(vec![context.f32_tensor(buffer, shape)?]);
            }
            let divisor = match op_type {
                "ReduceSum" if is_first => 1.0,
                "ReduceMean" if is_first => size as f32,
                _ => return self.0.run(inputs),
            };
            let out = buffer.as_mut::<f32>();
            for_each_part_of(context, values.len(), out, LANES, |start, part| {
                sum_columns(&values, n, start, part);
                part.iter_mut().for_each(|sum| *sum /= divisor);
            });
            return Ok(vec![context.f32_tensor(buffer, shape)?]);
        }
        let Some(row) = row else { return self.0.run(inputs) };
        for_each_part_of(context, values.len(), buffer.as_mut::<f32>(), 1, |start, part| {
            for (out, values) in part.iter_mut().zip(values[start * size..].chunks(size)) {
                *out = row(values);
            }
        });
        Ok(vec![context.f32_tensor(buffer, shape)?])
    }
}

/// Sums over the rows of `n` values, of the columns from `start` on. Stretches of rows are summed
/// apart, so that small values do not drown in a long sum.
fn sum_columns(values: &[f32], n: usize, start: usize, sums: &mut [f32]) {
    const STRETCH: usize = 64;
    sums.fill(0.0);
    let mut part = vec![0f32; sums.len()];
    for rows in values.chunks(STRETCH * n) {
        part.fill(0.0);
        for row in rows.chunks_exact(n) {
            part.iter_mut().zip(&row[start..]).for_each(|(sum, x)| *sum += x);
        }
        sums.iter_mut().zip(&part).for_each(|(sum, x)| *sum += x);
    }
}

/// The largest of each column; NaN where there is one.
fn largest_of_columns(values: &[f32], n: usize, start: usize, largest: &mut [f32]) {
    largest.fill(f32::NEG_INFINITY);
    for row in values.chunks_exact(n) {
        let larger = |(max, x): (&mut f32, &f32)| {
            if *x > *max || x.is_nan() {
                *max = *x;
            }
        };
        largest.iter_mut().zip(&row[start..]).for_each(larger);
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
