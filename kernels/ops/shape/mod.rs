//! `Shape` and `Size`.

use planish_ir::{DataType, Dim, Tensor};

use super::common::facts::{product, required};
use crate::kernel::required as resident;
use crate::op::required as input;
use crate::{CpuContext, Fact, Kernel, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Shape", infer_shape, eval_shape).with_cpu(cpu),
    OpDef::new("Size", infer_size, eval_size),
];

/// The axes that `Shape` returns.
fn range(op: &OpNode, rank: usize) -> std::ops::Range<usize> {
    let clamp = |index: i64| {
        let index = if index < 0 { index.saturating_add(rank as i64) } else { index };
        usize::try_from(index).unwrap_or(0).min(rank)
    };
    let (start, end) = (clamp(op.node.int("start", 0)), clamp(op.node.int("end", i64::MAX)));
    start..end.max(start)
}

fn infer_shape(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Ok(vec![match &required(inputs, 0)?.shape {
        Some(shape) => {
            let dims = shape[range(op, shape.len())].to_vec();
            Fact::of_dims(DataType::I64, 1, dims)
        }
        None => {
            let length = crate::infer::unknown_dim(op.node, 0);
            Fact::new(Some(DataType::I64), Some(vec![length]))
        }
    }])
}

fn shape_of(op: &OpNode, x: &Tensor) -> Tensor {
    let sizes: Vec<i64> =
        x.shape()[range(op, x.shape().len())].iter().map(|size| *size as i64).collect();
    Tensor::from_vec(&[sizes.len()], sizes)
}

fn eval_shape(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![shape_of(op, input(inputs, 0)?)])
}

fn infer_size(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let n: Option<Dim> = required(inputs, 0)?.shape.as_ref().map(product);
    Ok(vec![match n {
        Some(n) => Fact::of_dims(DataType::I64, 0, vec![n]),
        None => Fact::new(Some(DataType::I64), Some(Vec::new())),
    }])
}

fn eval_size(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![Tensor::scalar(input(inputs, 0)?.n_elements() as i64)])
}

struct Shape {
    node: planish_ir::Node,
    opset: i64,
}

impl Kernel for Shape {
    fn run(&self, _: &mut CpuContext, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let op = OpNode { node: &self.node, opset: self.opset };
        Ok(vec![shape_of(&op, resident(inputs, 0)?)])
    }
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    Ok(Some(Box::new(Shape { node: op.node.clone(), opset: op.opset })))
}
