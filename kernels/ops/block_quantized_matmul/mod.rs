//! planish's `BlockQuantizedMatMul`: as `QuantizedMatMul`, with a weight scale for every
//! `block_size` rows of K and column: Y = a_scale · Σ_blocks w_scale · (codes · W in the block).

use planish_ir::{DataType, Function, Node, Tensor};

use super::quantized_matmul::product_facts;
use super::support::body::Body;
use super::support::{Dense, dense, facts, packed};
use crate::op::required;
use crate::{DOMAIN, Fact, Kernel, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[OpDef::new("BlockQuantizedMatMul", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::quantized_matmul::cuda::cuda)
    .with_function(function)];

/// The attribute `block_size`, which must be positive.
fn block_size(op: &OpNode) -> Result<usize, OpError> {
    match usize::try_from(op.node.int("block_size", 0)) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(OpError::unsupported("block_size must be positive")),
    }
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (w, scale) = (facts::required(inputs, 2)?, facts::required(inputs, 3)?);
    facts::same_size("the weight's scale", w.dim(1), scale.dim(1))?;
    let size = planish_ir::Dim::from(block_size(op)?);
    let covered = scale.dim(0).map(|blocks| blocks.mul(&size));
    facts::same_size("the blocks together", w.dim(0), covered.as_ref())?;
    product_facts(inputs)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (codes, w) = (required(inputs, 0)?, required(inputs, 2)?);
    let (a_scale, w_scale) =
        (Dense::read(required(inputs, 1)?)?, Dense::read(required(inputs, 3)?)?);
    let (size, (k, n)) = (block_size(op)?, packed::sizes(w, false)?);
    let n_rows = super::support::rows::count(codes, k)?;
    let fits = k.is_multiple_of(size) && w_scale.shape == [k / size, n];
    if !fits || a_scale.data.len() != n_rows {
        return Err(OpError::shape("codes, scales and weight do not go together"));
    }
    let (left, right) = (codes.to_i64_vec()?, w.to_i64_vec()?);
    let block = |row: usize, column: usize, block: usize| {
        let terms = block * size..(block + 1) * size;
        let sum: i64 = terms.map(|i| left[row * k + i] * right[i * n + column]).sum();
        sum as f32 * w_scale.data[block * n + column]
    };
    let cell = |i: usize| {
        let (row, column) = (i / n, i % n);
        (0..k / size).map(|b| block(row, column, b)).sum::<f32>() * a_scale.data[row]
    };
    let data = (0..n_rows * n).map(cell).collect();
    let shape = super::support::rows::with_last(codes, n);
    Ok(vec![dense::of_f32(DataType::F32, &shape, data)?])
}

fn cpu(op: &OpNode, constants: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    super::quantized_matmul::cpu::kernel(constants, Some(block_size(op)?))
}

fn function() -> Function {
    let inputs = ["codes", "a_scale", "W", "w_scale"];
    let (mut body, x) = Body::new("BlockQuantizedMatMul", &inputs);
    let size = body.int_attribute("block_size");
    let first = body.ints("first", &[0]);
    let size = body.op("size", "Unsqueeze", &[size, first]);
    let blocks = body.shape("blocks", x[3], 0, Some(1));
    let (rows, columns) = (body.ints("rows", &[-1]), body.shape("columns", x[2], 1, None));
    // Codes as [blocks, rows, size], the weight as [blocks, size, columns].
    let codes = body.reshape("by_block", x[0], &[rows, blocks, size]);
    let swap = Node::new("Transpose", vec![Some(codes)]).with("perm", vec![1i64, 0, 2]);
    let codes = body.node("blocked_codes", swap);
    let w = body.cast("W8", x[2], DataType::I8);
    let w = body.reshape("blocked_weight", w, &[blocks, size, columns]);
    let sums = body.op("sums", "MatMulInteger", &[codes, w]);
    let sums = body.cast("sums_f", sums, DataType::F32);
    let middle = body.ints("middle", &[1]);
    let scale = body.op("block_scale", "Unsqueeze", &[x[3], middle]);
    let scaled = body.op("scaled_sums", "Mul", &[sums, scale]);
    let total = Node::new("ReduceSum", vec![Some(scaled), Some(first)]).with("keepdims", 0i64);
    let total = body.node("total", total);
    let outer = body.shape("outer", x[0], 0, Some(-1));
    let total = body.reshape("shaped", total, &[outer, columns]);
    let y = body.op("scaled", "Mul", &[total, x[1]]);
    body.finish(&[(y, "Y")])
}
