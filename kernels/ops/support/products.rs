//! Products of f32 matrices, in the precision that the context asks for.

use planish_cpu::{Isa, MatMut, MatRef, ProductPrecision, gemm};

use crate::CpuContext;
use crate::ops::common::parallel;
use crate::ops::matmul::Plan;

/// Multiply-adds from which a product gains by rounding its factors.
const MIN_ROUNDED: usize = 1 << 20;
/// Smallest rows, columns and depth from which it does: a narrower product waits for memory.
const MIN_ROUNDED_SIDE: usize = 64;
/// Multiply-adds up to which a product of a batch runs on one thread.
const MAX_SERIAL: usize = 1 << 24;

/// c = alpha · a · b + beta · c, in bfloat16 where the context allows it and it pays.
pub(in crate::ops) fn multiply(
    context: &CpuContext,
    alpha: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
    beta: f32,
    c: MatMut<'_>,
) {
    let precision = match context.precision {
        ProductPrecision::BF16 if gains(a.rows, a.cols, b.cols) => ProductPrecision::BF16,
        _ => ProductPrecision::F32,
    };
    gemm(context.pool, Isa::best(), precision, alpha, a, b, beta, c);
}

fn gains(m: usize, k: usize, n: usize) -> bool {
    m.min(k).min(n) >= MIN_ROUNDED_SIDE && m * k * n >= MIN_ROUNDED
}

/// The matrices of one factor, one after the other.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Factor<'a> {
    pub data: &'a [f32],
    /// Whether each is stored transposed.
    pub transposed: bool,
}

impl<'a> Factor<'a> {
    /// The matrix at `index`, `[rows, cols]` as it takes part in the product.
    fn matrix(&self, index: usize, rows: usize, cols: usize) -> MatRef<'a> {
        let data = &self.data[index * rows * cols..][..rows * cols];
        match self.transposed {
            true => MatRef::new(data, cols, rows).t(),
            false => MatRef::new(data, rows, cols),
        }
    }
}

/// All products of the plan times `alpha`, one after the other in `y`. With a single right factor
/// they are one of all the rows; small ones are divided among the threads.
pub(in crate::ops) fn batched(
    context: &CpuContext,
    plan: &Plan,
    alpha: f32,
    left: Factor<'_>,
    right: Factor<'_>,
    y: &mut [f32],
) {
    let (m, k, n, count) = (plan.m, plan.k, plan.n, plan.n_products());
    if y.is_empty() {
        return;
    }
    if plan.has_one_right() && !left.transposed {
        let (a, b) = (left.matrix(0, count * m, k), right.matrix(0, k, n));
        return multiply(context, alpha, a, b, 0.0, MatMut::new(y, count * m, n));
    }
    let run = |first: usize, part: &mut [f32]| {
        for (i, c) in part.chunks_exact_mut(m * n).enumerate() {
            let (a, b) = plan.factors(first / (m * n) + i);
            let (a, b) = (left.matrix(a, m, k), right.matrix(b, k, n));
            multiply(context, alpha, a, b, 0.0, MatMut::new(c, m, n));
        }
    };
    if count >= context.pool.n_threads() && m * k * n <= MAX_SERIAL {
        parallel::for_each_part_of(context, count * m * k * n, y, m * n, run);
    } else {
        run(0, y);
    }
}
