//! `Softmax` and `LogSoftmax`: over one axis from opset 13 on, before that over all axes from
//! `axis` on, taken together.

use planish_ir::Tensor;

use super::support::{Dense, facts};
use crate::op::required;
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Softmax", infer, softmax)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad::softmax),
    OpDef::new("LogSoftmax", infer, log_softmax).with_cuda(cuda::cuda).with_grad(grad::log_softmax),
];

/// First operator set in which the softmax runs over a single axis.
const SINGLE_AXIS: i64 = 13;

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    if let Some(rank) = facts::required(inputs, 0)?.rank() {
        groups(op, &vec![1; rank])?;
    }
    facts::same_as_first(inputs)
}

fn softmax(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    over_groups(op, inputs, |row| {
        let (max, log_sum) = log_sum_exp(row);
        row.iter_mut().for_each(|v| *v = (f64::from(*v) - max - log_sum).exp() as f32);
    })
}

fn log_softmax(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    over_groups(op, inputs, |row| {
        let (max, log_sum) = log_sum_exp(row);
        row.iter_mut().for_each(|v| *v = (f64::from(*v) - max - log_sum) as f32);
    })
}

/// The maximum, and the logarithm of the sum of exp(x − maximum).
fn log_sum_exp(row: &[f32]) -> (f64, f64) {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - max).exp()).sum();
    (max, sum.ln())
}

/// Outer size, size of the group, and distance of its elements.
pub(in crate::ops) fn groups(
    op: &OpNode,
    shape: &[usize],
) -> Result<(usize, usize, usize), OpError> {
    if op.opset >= SINGLE_AXIS {
        if shape.is_empty() {
            return Ok((1, 1, 1));
        }
        let axis = facts::axis(op.node.int("axis", -1), shape.len(), false)?;
        let product = |sizes: &[usize]| sizes.iter().product::<usize>();
        return Ok((product(&shape[..axis]), shape[axis], product(&shape[axis + 1..])));
    }
    let axis = facts::axis(op.node.int("axis", 1), shape.len(), true)?;
    Ok((shape[..axis].iter().product(), shape[axis..].iter().product(), 1))
}

fn over_groups(
    op: &OpNode,
    inputs: &[Option<Tensor>],
    f: impl Fn(&mut [f32]),
) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let mut y = Dense::read(x)?;
    let (outer, n, step) = groups(op, &y.shape)?;
    let mut row = vec![0.0; n];
    for o in 0..outer {
        for s in 0..step {
            let at = |i: usize| (o * n + i) * step + s;
            row.iter_mut().enumerate().for_each(|(i, v)| *v = y.data[at(i)]);
            f(&mut row);
            row.iter().enumerate().for_each(|(i, v)| y.data[at(i)] = *v);
        }
    }
    Ok(vec![y.into_tensor(x.dtype())?])
}
