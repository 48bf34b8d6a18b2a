//! ONNX Runtime's `FusedMatMul`: α · A · B as `MatMul`, the last two axes of either factor swapped
//! on request. Float tensors; `transBatchA` and `transBatchB` are not taken.

use planish_ir::{DataType, Dim, Tensor};

use super::matmul::{Plan, product_dims};
use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("FusedMatMul", infer, eval)
    .in_domain(MICROSOFT)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)];

const FLOATS: [DataType; 4] = [DataType::F16, DataType::BF16, DataType::F32, DataType::F64];

/// Which factors are transposed, and what the product is multiplied by.
#[derive(Clone, Copy)]
struct Attributes {
    trans_a: bool,
    trans_b: bool,
    alpha: f32,
}

impl Attributes {
    fn read(op: &OpNode) -> Result<Self, OpError> {
        for name in ["transBatchA", "transBatchB"] {
            if op.node.int(name, 0) != 0 {
                return Err(OpError::unsupported(format!("FusedMatMul with {name} is not taken")));
            }
        }
        Ok(Self {
            trans_a: op.node.int("transA", 0) != 0,
            trans_b: op.node.int("transB", 0) != 0,
            alpha: op.node.float("alpha", 1.0),
        })
    }
}

/// The shape of a factor as it takes part in the product. A vector has no axes to swap.
fn turned<T: Clone>(shape: &[T], transposed: bool) -> Vec<T> {
    let mut shape = shape.to_vec();
    if let (true, [.., rows, cols]) = (transposed, &mut shape[..]) {
        std::mem::swap(rows, cols);
    }
    shape
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let attributes = Attributes::read(op)?;
    let (a, b) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::of_type("a factor", a, &FLOATS)?;
    facts::of_type("a factor", b, &FLOATS)?;
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => Some(product(a, b, attributes)?),
        _ => None,
    };
    Ok(vec![Fact::new(a.dtype.or(b.dtype), shape)])
}

fn product(a: &[Dim], b: &[Dim], attributes: Attributes) -> Result<Vec<Dim>, OpError> {
    product_dims(&turned(a, attributes.trans_a), &turned(b, attributes.trans_b))
}

fn plan(a: &[usize], b: &[usize], attributes: Attributes) -> Result<Plan, OpError> {
    Plan::new(&turned(a, attributes.trans_a), &turned(b, attributes.trans_b))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let attributes = Attributes::read(op)?;
    let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
    if !FLOATS.contains(&a.dtype()) || a.dtype() != b.dtype() {
        let message = format!("FusedMatMul does not take {} and {}", a.dtype(), b.dtype());
        return Err(OpError::unsupported(message));
    }
    let plan = plan(a.shape(), b.shape(), attributes)?;
    let left = elements(a, attributes.trans_a)?;
    let right = elements(b, attributes.trans_b)?;
    let cell = |(row, start): (usize, usize)| {
        let column: Vec<f32> = (0..plan.k).map(|k| right[start + k * plan.n]).collect();
        let sum = dense::dot(&left[row..row + plan.k], &column);
        (f64::from(attributes.alpha) * sum) as f32
    };
    let data = plan.cells().map(cell).collect();
    Ok(vec![dense::of_f32(a.dtype(), &plan.shape, data)?])
}

/// The elements in the order in which they take part in the product.
fn elements(x: &Tensor, transposed: bool) -> Result<Vec<f32>, OpError> {
    let data = Dense::read(x)?.data;
    let (true, &[.., rows, cols]) = (transposed, x.shape()) else { return Ok(data) };
    let at = |i: usize| i / (rows * cols) * rows * cols + i % rows * cols + i / rows % cols;
    Ok((0..data.len()).map(|i| data[at(i)]).collect())
}
