//! planish's `TransformHeads`: the vector of each head times P `[d, d]`.

use planish_ir::{Dim, Function, Tensor};

use super::support::body::Body;
use super::support::{Dense, dense, facts};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod grad;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("TransformHeads", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu::cpu)
    .with_cuda(cuda::cuda)
    .with_function(function)
    .with_grad(grad::rule)];

fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (x, p) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("the second axis of a transform", p.dim(0), p.dim(1))?;
    let (width, size) = (x.dim(-1).and_then(Dim::as_usize), p.dim(0).and_then(Dim::as_usize));
    if let (Some(width), Some(size)) = (width, size) {
        n_heads(width, size)?;
    }
    facts::same_as_first(inputs)
}

/// The number of heads of `size` channels among `width`.
pub(in crate::ops) fn n_heads(width: usize, size: usize) -> Result<usize, OpError> {
    if size == 0 || !width.is_multiple_of(size) {
        return Err(OpError::shape(format!("{width} channels are not heads of {size}")));
    }
    Ok(width / size)
}

fn eval(_: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (x, p) = (required(inputs, 0)?, required(inputs, 1)?);
    let &[d, columns] = p.shape() else { return Err(OpError::shape("P must be a matrix")) };
    let rows = Dense::read(x)?;
    n_heads(rows.last(), d)?;
    if d != columns {
        return Err(OpError::shape("P must be square"));
    }
    let p = Dense::read(p)?;
    let column = |c: usize| (0..d).map(|r| p.data[r * d + c]).collect::<Vec<f32>>();
    let columns: Vec<Vec<f32>> = (0..d).map(column).collect();
    let head =
        |head: &[f32]| columns.iter().map(|c| dense::dot(head, c) as f32).collect::<Vec<f32>>();
    let data = rows.data.chunks_exact(d).flat_map(head).collect();
    Ok(vec![dense::of_f32(x.dtype(), x.shape(), data)?])
}

fn function() -> Function {
    let (mut body, x) = Body::new("TransformHeads", &["X", "P"]);
    let whole = body.shape("whole", x[0], 0, None);
    let outer = body.shape("outer", x[0], 0, Some(-1));
    let heads = body.ints("heads", &[-1]);
    let size = body.shape("size", x[1], 0, Some(1));
    let rows = body.reshape("by_head", x[0], &[outer, heads, size]);
    let product = body.op("product", "MatMul", &[rows, x[1]]);
    let y = body.reshape("shaped", product, &[whole]);
    body.finish(&[(y, "Y")])
}
