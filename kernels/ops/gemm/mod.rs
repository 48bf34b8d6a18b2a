//! `Gemm`: α · A · B + β · C, either factor transposed on request; and ONNX Runtime's `FusedGemm`,
//! the same under an activation.

use planish_ir::{Dim, Tensor};

use super::support::{Dense, facts};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("Gemm", infer, eval).with_cpu(cpu::cpu).with_cuda(cuda::cuda).with_grad(grad::gemm),
    OpDef::new("FusedGemm", infer, fused).in_domain(MICROSOFT),
];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (a, b) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    let (rows, inner) = sides(a, op.node.int("transA", 0) != 0)?;
    let (other, columns) = sides(b, op.node.int("transB", 0) != 0)?;
    facts::same_size("the second factor", inner.as_ref(), other.as_ref())?;
    let shape = rows.zip(columns).map(|(m, n)| vec![m, n]);
    Ok(vec![Fact::new(a.dtype.or(b.dtype), shape)])
}

/// Rows and columns of a factor as it takes part in the product.
fn sides(fact: &Fact, transposed: bool) -> Result<(Option<Dim>, Option<Dim>), OpError> {
    match fact.shape.as_deref() {
        None => Ok((None, None)),
        Some([r, c]) if transposed => Ok((Some(c.clone()), Some(r.clone()))),
        Some([r, c]) => Ok((Some(r.clone()), Some(c.clone()))),
        Some(shape) => Err(OpError::shape(format!("Gemm multiplies matrices, not {shape:?}"))),
    }
}

/// A matrix as it takes part in the product: rows, columns, steps along both.
fn matrix(shape: &[usize], transposed: bool) -> Result<[usize; 4], OpError> {
    match *shape {
        [r, c] if transposed => Ok([c, r, 1, c]),
        [r, c] => Ok([r, c, c, 1]),
        _ => Err(OpError::shape(format!("Gemm multiplies matrices, not {shape:?}"))),
    }
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
    let [m, k, a_row, a_col] = matrix(a.shape(), op.node.int("transA", 0) != 0)?;
    let [k2, n, b_row, b_col] = matrix(b.shape(), op.node.int("transB", 0) != 0)?;
    if k != k2 {
        return Err(OpError::shape(format!("{:?} by {:?}", a.shape(), b.shape())));
    }
    let (left, right) = (Dense::read(a)?, Dense::read(b)?);
    let (alpha, beta) = (op.node.float("alpha", 1.0), op.node.float("beta", 1.0));
    let mut y = Dense::zeros(&[m, n]);
    for (i, v) in y.data.iter_mut().enumerate() {
        let (row, col) = (i / n * a_row, i % n * b_col);
        let product =
            |k| f64::from(left.data[row + k * a_col]) * f64::from(right.data[col + k * b_row]);
        *v = alpha * (0..k).map(product).sum::<f64>() as f32;
    }
    if let Some(c) = optional(inputs, 2) {
        y.combine(&Dense::read(c)?, |y, c| y + beta * c)?;
    }
    Ok(vec![y.into_tensor(a.dtype())?])
}

fn fused(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let f: fn(f64) -> f64 = match op.node.str("activation", "") {
        "Relu" => |x| x.max(0.0),
        "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
        "Softsign" => |x| x / (1.0 + x.abs()),
        "Tanh" => f64::tanh,
        other => return Err(OpError::unsupported(format!("activation = \"{other}\" is unknown"))),
    };
    let product = eval(op, inputs)?.remove(0);
    let mut y = Dense::read(&product)?;
    y.data.iter_mut().for_each(|v| *v = f(f64::from(*v)) as f32);
    Ok(vec![y.into_tensor(product.dtype())?])
}
