//! The fast form of `Gemm`.

use planish_cpu::{MatMut, MatRef};
use planish_ir::Tensor;

use super::matrix;
use crate::ops::common::broadcast;
use crate::ops::support::products::multiply;
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, super::eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let ([Some(a), Some(b)], [Some(a_data), Some(b_data)]) =
        ([0, 1].map(|i| fast::input(inputs, i)), [0, 1].map(|i| fast::f32s(inputs, i)))
    else {
        return Ok(None);
    };
    let left = view(a, &a_data, op.node.int("transA", 0) != 0)?;
    let right = view(b, &b_data, op.node.int("transB", 0) != 0)?;
    let (m, n) = (left.rows, right.cols);
    let c = fast::f32s(inputs, 2);
    if left.cols != right.rows || (fast::input(inputs, 2).is_some() && c.is_none()) {
        return Ok(None);
    }
    let c_shape = fast::input(inputs, 2).map_or(&[][..], Tensor::shape);
    if broadcast::shapes(c_shape, &[m, n])? != [m, n] {
        return Ok(None);
    }
    let (alpha, beta) = (op.node.float("alpha", 1.0), op.node.float("beta", 1.0));
    let y = rows::f32_output(context, vec![m, n], |y| {
        if let Some(c) = &c {
            let steps = broadcast::strides(c_shape, &[m, n]);
            let cell = |(i, y): (usize, &mut f32)| *y = c[i / n * steps[0] + i % n * steps[1]];
            y.iter_mut().enumerate().for_each(cell);
        }
        let beta = if c.is_some() { beta } else { 0.0 };
        multiply(context, alpha, left, right, beta, MatMut::new(y, m, n));
    })?;
    Ok(Some(vec![y]))
}

fn view<'a>(x: &Tensor, data: &'a [f32], transposed: bool) -> Result<MatRef<'a>, OpError> {
    let [rows, cols, row_stride, col_stride] = matrix(x.shape(), transposed)?;
    Ok(MatRef { data, rows, cols, row_stride, col_stride })
}
