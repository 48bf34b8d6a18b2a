//! `MatMul`: products of matrices, batched with broadcasting, as numpy's `matmul`.

use planish_ir::{DataType, Dim, Tensor};

use super::common::{broadcast, index};
use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("MatMul", infer, eval)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_grad(grad::matmul)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (a, b) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    Ok(vec![Fact::new(a.dtype.or(b.dtype), shape)])
}

/// The shape of the product.
pub(in crate::ops) fn product_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, OpError> {
    let (Some(k), false) = (a.last(), b.is_empty()) else {
        return Err(OpError::shape("a scalar can't be multiplied as a matrix"));
    };
    facts::same_size("the second factor", Some(k), b.get(b.len().saturating_sub(2)))?;
    let outer = |s: &[Dim]| s[..s.len().saturating_sub(2)].to_vec();
    let mut shape = broadcast::dims(&outer(a), &outer(b))?;
    if a.len() > 1 {
        shape.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        shape.push(b[b.len() - 1].clone());
    }
    Ok(shape)
}

/// A product of batched matrices, sizes settled.
pub(in crate::ops) struct Plan {
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Rows of the left factor.
    pub m: usize,
    /// Columns of the left factor.
    pub k: usize,
    /// Columns of the right factor.
    pub n: usize,
    batch: Vec<usize>,
    left: Vec<usize>,
    right: Vec<usize>,
}

impl Plan {
    /// Checks that the shapes go together.
    pub fn new(a: &[usize], b: &[usize]) -> Result<Self, OpError> {
        let as_dims = |s: &[usize]| s.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        let shape = product_dims(&as_dims(a), &as_dims(b))?;
        let shape = shape.iter().filter_map(Dim::as_usize).collect();
        let outer = |s: &[usize]| s[..s.len().saturating_sub(2)].to_vec();
        let batch = broadcast::shapes(&outer(a), &outer(b))?;
        let rows = |s: &[usize]| if s.len() > 1 { s[s.len() - 2] } else { 1 };
        Ok(Self {
            shape,
            m: rows(a),
            k: a[a.len() - 1],
            n: if b.len() > 1 { b[b.len() - 1] } else { 1 },
            left: broadcast::strides(&outer(a), &batch),
            right: broadcast::strides(&outer(b), &batch),
            batch,
        })
    }

    /// Number of matrix products.
    pub fn n_products(&self) -> usize {
        self.batch.iter().product()
    }

    /// Indices of the left and the right matrix of product `i`.
    pub fn factors(&self, i: usize) -> (usize, usize) {
        let steps = index::strides(&self.batch);
        let coordinates = self.batch.iter().zip(&steps).map(|(size, step)| i / step % size);
        let at: Vec<usize> = coordinates.collect();
        (index::flat(&at, &self.left), index::flat(&at, &self.right))
    }

    /// Batch axes, outermost first: size, and how many matrices on each factor goes.
    pub fn axes(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let steps = self.left.iter().zip(&self.right);
        self.batch.iter().zip(steps).map(|(size, (left, right))| (*size, *left, *right))
    }

    /// Whether all products have the same right matrix and each its own left one, in order: they
    /// are then one product of all the rows.
    pub fn has_one_right(&self) -> bool {
        let in_order = index::strides(&self.batch);
        let axes = self.batch.iter().zip(in_order).zip(self.left.iter().zip(&self.right));
        axes.into_iter()
            .all(|((&size, step), (&left, &right))| size == 1 || (left == step && right == 0))
    }

    /// For each element of the result: where its row of the left factor starts, and where its
    /// column of the right one does.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (m, k, n) = (self.m, self.k, self.n);
        (0..self.n_products()).flat_map(move |p| {
            let (left, right) = self.factors(p);
            let cell = move |i: usize| ((left * m + i / n) * k, right * k * n + i % n);
            (0..m * n).map(cell)
        })
    }
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
    let plan = Plan::new(a.shape(), b.shape())?;
    if a.dtype().is_integer() {
        return Ok(vec![integers(&plan, a, b)?]);
    }
    let (left, right) = (Dense::read(a)?, Dense::read(b)?);
    let mut column = vec![0.0; plan.k];
    let cell = |(row, start): (usize, usize)| {
        for (k, v) in column.iter_mut().enumerate() {
            *v = right.data[start + k * plan.n];
        }
        dense::dot(&left.data[row..row + plan.k], &column) as f32
    };
    let data = plan.cells().map(cell).collect();
    Ok(vec![dense::of_f32(a.dtype(), &plan.shape, data)?])
}

fn integers(plan: &Plan, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    let (left, right) = (a.to_i64_vec()?, b.to_i64_vec()?);
    let sums = integer_sums(plan, &left, &right);
    Ok(match a.dtype() {
        DataType::I32 => Tensor::from_vec(&plan.shape, sums.map(|v| v as i32).collect()),
        DataType::U32 => Tensor::from_vec(&plan.shape, sums.map(|v| v as u32).collect()),
        DataType::I64 => Tensor::from_vec(&plan.shape, sums.collect()),
        DataType::U64 => Tensor::from_vec(&plan.shape, sums.map(|v| v as u64).collect()),
        other => return Err(OpError::unsupported(format!("MatMul does not take {other}"))),
    })
}

/// The elements of the product of integer matrices, wrapping.
pub(in crate::ops) fn integer_sums<'a>(
    plan: &'a Plan,
    a: &'a [i64],
    b: &'a [i64],
) -> impl Iterator<Item = i64> + 'a {
    plan.cells().map(move |(row, start)| {
        let products = (0..plan.k).map(|k| a[row + k].wrapping_mul(b[start + k * plan.n]));
        products.fold(0i64, i64::wrapping_add)
    })
}
