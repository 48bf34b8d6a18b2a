//! `Inverse` of ONNX Runtime's domain: X `[.., n, n]` → X⁻¹, computed in f64. A singular matrix is
//! an error.

use planish_cpu::Singular;
use planish_ir::{Dim, Tensor, ValueId};

use super::support::{Dense, facts};
use crate::grad::{GradNode, GradScope};
use crate::op::required;
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("Inverse", infer, eval)
    .in_domain(MICROSOFT)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let x = facts::required(inputs, 0)?;
    if x.rank().is_some_and(|rank| rank < 2) {
        return Err(OpError::shape("only matrices have inverses"));
    }
    match [-2, -1].map(|axis| x.dim(axis).and_then(Dim::as_const)) {
        [Some(rows), Some(columns)] if rows != columns => Err(not_square(rows, columns)),
        _ => facts::same_as_first(inputs),
    }
}

fn not_square(rows: impl std::fmt::Display, columns: impl std::fmt::Display) -> OpError {
    OpError::shape(format!("a matrix [{rows}, {columns}] has no inverse: it is not square"))
}

/// The size of the square matrices along the last two axes.
fn size(x: &Tensor) -> Result<usize, OpError> {
    match *x.shape() {
        [.., rows, columns] if rows == columns => Ok(rows),
        [.., rows, columns] => Err(not_square(rows, columns)),
        _ => Err(OpError::shape("only matrices have inverses")),
    }
}

/// The error for a matrix without inverse.
fn singular(error: Singular) -> OpError {
    OpError::unsupported(format!("{error}, or nearly so, and has no inverse"))
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let n = size(x)?;
    let mut y = Dense::read(x)?;
    for matrix in y.data.chunks_exact_mut((n * n).max(1)) {
        invert(matrix, n).map_err(singular)?;
    }
    Ok(vec![y.into_tensor(x.dtype())?])
}

/// Replaces a matrix by its inverse: Gauss and Jordan's elimination with partial pivoting.
fn invert(matrix: &mut [f32], n: usize) -> Result<(), Singular> {
    let row = |i: usize| {
        let left = matrix[i * n..(i + 1) * n].iter().map(|x| f64::from(*x));
        left.chain((0..n).map(move |j| f64::from(u8::from(i == j)))).collect::<Vec<f64>>()
    };
    let mut rows: Vec<Vec<f64>> = (0..n).map(row).collect();
    let largest = |c: usize| (0..n).map(|i| f64::from(matrix[i * n + c].abs())).fold(0.0, f64::max);
    let least: Vec<f64> = (0..n).map(|c| n as f64 * f64::EPSILON * largest(c)).collect();
    for c in 0..n {
        let by_size = |a: &usize, b: &usize| rows[*a][c].abs().total_cmp(&rows[*b][c].abs());
        let best = (c..n).max_by(by_size).unwrap_or(c);
        rows.swap(c, best);
        let pivot = rows[c][c];
        if !(pivot.abs() > least[c] && pivot.is_finite()) {
            return Err(Singular);
        }
        rows[c].iter_mut().for_each(|x| *x /= pivot);
        let pivots = rows[c].clone();
        for row in rows.iter_mut().enumerate().filter(|(i, _)| *i != c).map(|(_, row)| row) {
            let factor = row[c];
            row.iter_mut().zip(&pivots).for_each(|(x, p)| *x -= factor * p);
        }
    }
    for (to, row) in matrix.chunks_exact_mut(n).zip(&rows) {
        to.iter_mut().zip(&row[n..]).for_each(|(to, x)| *to = *x as f32);
    }
    Ok(())
}

/// dX = −Yᵀ · dY · Yᵀ, from d(X⁻¹) = −X⁻¹ · dX · X⁻¹.
fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    let (Some(dy), true) = (node.of_output(0), node.wants(0)) else { return Ok(node.nothing()) };
    let y = node.output(0)?;
    let left = scope.matmul((y, true), (dy, false))?;
    let both = scope.matmul((left, false), (y, true))?;
    Ok(vec![Some(scope.op("Neg", &[both])?)])
}
