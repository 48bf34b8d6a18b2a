//! `SimplifiedLayerNormalization`, ONNX Runtime's name for RMS normalisation: found both in its
//! own domain and in ONNX's. Its second output is the inverse root mean square.

use planish_ir::{DataType, Dim, Tensor};

use super::rms_normalization::{cpu::kernel, cuda::cuda, grad, inverse_rms};
use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{Fact, Kernel, MICROSOFT, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("SimplifiedLayerNormalization", infer, eval)
        .with_cpu(cpu)
        .with_cuda(cuda)
        .with_grad(grad::rule),
    OpDef::new("SimplifiedLayerNormalization", infer, eval)
        .with_cpu(cpu)
        .with_cuda(cuda)
        .with_grad(grad::rule)
        .in_domain(MICROSOFT),
];

/// ε where the node names none.
const EPSILON: f32 = 1e-5;

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 1)?;
    let x = facts::required(inputs, 0)?;
    let mut statistics = x.shape.clone();
    if let Some(shape) = &mut statistics {
        let axis = facts::axis(op.node.int("axis", -1), shape.len(), false)?;
        shape[axis..].fill(Dim::from(1i64));
    }
    let outputs = [facts::like(x), Fact::new(Some(DataType::F32), statistics)];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let mut y = Dense::read(x)?;
    let axis = facts::axis(op.node.int("axis", -1), y.shape.len(), false)?;
    let n = y.shape[axis..].iter().product::<usize>().max(1);
    let epsilon = op.node.float("epsilon", EPSILON);
    let inverse: Vec<f32> = y.data.chunks_exact(n).map(|row| inverse_rms(row, epsilon)).collect();
    for (row, inverse) in y.data.chunks_exact_mut(n).zip(&inverse) {
        row.iter_mut().for_each(|v| *v *= inverse);
    }
    y.combine(&Dense::read(required(inputs, 1)?)?, |y, scale| y * scale)?;
    let mut shape = y.shape.clone();
    shape[axis..].fill(1);
    let outputs = [y.into_tensor(x.dtype())?, dense::of_f32(DataType::F32, &shape, inverse)?];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}

fn cpu(op: &OpNode, constants: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    if op.wants(1) {
        return Ok(None);
    }
    kernel(op, constants, eval)
}
