//! The fast form of `MatMul`.

use planish_cpu::{Isa, MatMut, MatRef, sgemm};
use planish_ir::Tensor;

use super::Plan;
use crate::kernel::required;
use crate::ops::common::fallback::Fallback;
use crate::ops::support::held::Held;
use crate::ops::support::{fast, rows};
use crate::{CpuContext, Kernel, OpError, OpNode};

struct MatMul {
    right: Held,
    fallback: Fallback,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let right = Held::new(constants, 1)?;
    Ok(Some(Box::new(MatMul { right, fallback: Fallback::new(op, super::eval) })))
}

impl Kernel for MatMul {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let a = required(inputs, 0)?;
        let (Some(left), Ok((right, shape))) = (fast::f32s(inputs, 0), self.right.get(inputs))
        else {
            return self.fallback.run(inputs);
        };
        let plan = Plan::new(a.shape(), shape)?;
        let y = rows::f32_output(context, plan.shape.clone(), |y| {
            multiply(context, &plan, shape.len() <= 2, &left, &right, y);
        })?;
        Ok(vec![y])
    }
}

/// All products of the plan; with a single right factor they are one of all the rows.
fn multiply(
    context: &CpuContext,
    plan: &Plan,
    is_single: bool,
    left: &[f32],
    right: &[f32],
    y: &mut [f32],
) {
    let (m, k, n) = (plan.m, plan.k, plan.n);
    let product = |a: &[f32], m: usize, b: &[f32], c: &mut [f32]| {
        let (a, b, c) = (MatRef::new(a, m, k), MatRef::new(b, k, n), MatMut::new(c, m, n));
        sgemm(context.pool, Isa::best(), 1.0, a, b, 0.0, c);
    };
    if is_single {
        return product(left, plan.n_products() * m, right, y);
    }
    for (i, y) in y.chunks_exact_mut((m * n).max(1)).enumerate() {
        let (a, b) = plan.factors(i);
        product(&left[a * m * k..][..m * k], m, &right[b * k * n..][..k * n], y);
    }
}
