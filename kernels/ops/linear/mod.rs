//! The engine's `Linear`: X · W, plus a bias if there is one. W is `[K, N]`, or `[N, K]` with
//! `trans_b`: f32, or f16 or bf16 as it is stored.

use planish_ir::{DataType, Dim, Tensor};

use super::support::{Dense, dense, facts, rows};
use crate::op::{optional, required};
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Linear", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad::linear)];

/// Whether the weight is `[N, K]`.
pub(in crate::ops) fn is_transposed(op: &OpNode) -> bool {
    op.node.int("trans_b", 0) != 0
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let w = facts::required(inputs, 1)?;
    let shape = product_shape(facts::required(inputs, 0)?, w, is_transposed(op))?;
    check_bias(facts::optional(inputs, 2), shape.as_deref())?;
    Ok(vec![Fact::new(Some(DataType::F32), shape)])
}

/// The shape of the rows of `x` times the weight `w`.
pub(in crate::ops) fn product_shape(
    x: &Fact,
    w: &Fact,
    transposed: bool,
) -> Result<Option<Vec<Dim>>, OpError> {
    let (k, n) = match w.shape.as_deref() {
        None => return Ok(None),
        Some([n, k]) if transposed => (k, n),
        Some([k, n]) => (k, n),
        Some(shape) => {
            return Err(OpError::shape(format!("a weight must be a matrix, not {shape:?}")));
        }
    };
    facts::same_size("the weight", x.dim(-1), Some(k))?;
    Ok(facts::with_last(x, n.clone()))
}

/// Fails if the bias does not have one element for each column.
pub(in crate::ops) fn check_bias(bias: Option<&Fact>, y: Option<&[Dim]>) -> Result<(), OpError> {
    facts::same_size("the bias", y.and_then(<[Dim]>::last), bias.and_then(|bias| bias.dim(0)))
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
    product(x, w, &w.to_f32_vec()?, is_transposed(op), optional(inputs, 2))
}

/// The rows of `x` times the weight, whose elements are `data` in the layout of `w`.
pub(in crate::ops) fn product(
    x: &Tensor,
    w: &Tensor,
    data: &[f32],
    transposed: bool,
    bias: Option<&Tensor>,
) -> Result<Vec<Tensor>, OpError> {
    let (k, n) = super::support::packed::sizes(w, transposed)?;
    rows::count(x, k)?;
    let column = |c: usize| -> Vec<f32> {
        if transposed {
            return data[c * k..(c + 1) * k].to_vec();
        }
        (0..k).map(|r| data[r * n + c]).collect()
    };
    let columns: Vec<Vec<f32>> = (0..n).map(column).collect();
    let row = |row: &[f32]| columns.iter().map(|c| dense::dot(row, c) as f32).collect::<Vec<f32>>();
    let y = Dense::read(x)?.rows().flat_map(row).collect();
    let mut y = Dense { shape: rows::with_last(x, n), data: y };
    if let Some(bias) = bias {
        y.combine(&Dense::read(bias)?, |y, bias| y + bias)?;
    }
    Ok(vec![y.into_tensor(DataType::F32)?])
}
