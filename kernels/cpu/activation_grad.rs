//! Gradients of the activation functions and of SwiGLU, elementwise.

use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{map2, simd_fn, zip_map};
use crate::{Isa, math};

/// Values below which a part is not worth another thread.
const MIN_VALUES: usize = 4_096;

/// Gradients of [`silu_mul`](crate::silu_mul) from that of its output: with s = sigmoid(gate),
/// dup = dy·gate·s and dgate = dy·up·s·(1 + gate·(1 − s)). Panics when the lengths differ.
pub fn silu_mul_grad(
    pool: &ThreadPool,
    isa: Isa,
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let n = dy.len();
    assert!([gate.len(), up.len(), dgate.len(), dup.len()] == [n; 4], "elementwise lengths");
    let (dgate, dup) = (SharedMut::new(dgate), SharedMut::new(dup));
    pool.for_each_chunk(n, MIN_VALUES, |range| {
        // SAFETY: the threads' ranges are disjoint.
        let (dgate, dup) = unsafe { (dgate.part(range.clone()), dup.part(range.clone())) };
        let (dy, gate, up) = (&dy[range.clone()], &gate[range.clone()], &up[range]);
        silu_mul_grad_part(isa, dy, gate, up, dgate, dup);
    });
}

type Part = fn(Isa, &[f32], &[f32], f32, &mut [f32]);

/// dx = dy · the derivative of x·sigmoid(alpha·x). Panics when the lengths differ.
pub fn silu_grad(pool: &ThreadPool, isa: Isa, dy: &[f32], x: &[f32], alpha: f32, dx: &mut [f32]) {
    each_part(pool, isa, [dy, x], alpha, dx, silu_grad_part);
}

/// dx = dy · the derivative of the tanh form of ONNX Gelu. Panics when the lengths differ.
pub fn gelu_tanh_grad(pool: &ThreadPool, isa: Isa, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    each_part(pool, isa, [dy, x], 0.0, dx, gelu_tanh_grad_part);
}

/// dx = dy · the derivative of the erf form of ONNX Gelu. Panics when the lengths differ.
pub fn gelu_erf_grad(pool: &ThreadPool, isa: Isa, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    each_part(pool, isa, [dy, x], 0.0, dx, gelu_erf_grad_part);
}

fn each_part(
    pool: &ThreadPool,
    isa: Isa,
    [dy, x]: [&[f32]; 2],
    alpha: f32,
    dx: &mut [f32],
    f: Part,
) {
    assert!(dy.len() == dx.len() && x.len() == dx.len(), "elementwise lengths");
    let shared = SharedMut::new(dx);
    pool.for_each_chunk(x.len(), MIN_VALUES, |range| {
        // SAFETY: the threads' ranges are disjoint.
        let dx = unsafe { shared.part(range.clone()) };
        f(isa, &dy[range.clone()], &x[range], alpha, dx);
    });
}

simd_fn! {
    fn silu_mul_grad_part<S>(
        dy: &[f32],
        gate: &[f32],
        up: &[f32],
        dgate: &mut [f32],
        dup: &mut [f32],
    ) {
        let n = dy.len();
        assert!([gate.len(), up.len(), dgate.len(), dup.len()] == [n; 4], "elementwise lengths");
        let (dy, gate, up) = (dy.as_ptr(), gate.as_ptr(), up.as_ptr());
        zip_map!(S, n, [dy: dy, x: gate, up: up] => [dgate.as_mut_ptr(), dup.as_mut_ptr()], {
            let (value, slope) = math::silu_and_slope::<S>(x, S::splat(1.0));
            [S::mul(S::mul(dy, up), slope), S::mul(dy, value)]
        });
    }
}

macro_rules! grad_kernel {
    ($name:ident, |$x:ident, $alpha:ident| $slope:expr) => {
        simd_fn! {
            fn $name<S>(dy: &[f32], x: &[f32], $alpha: f32, dx: &mut [f32]) {
                let n = dx.len().min(dy.len()).min(x.len());
                let $alpha = S::splat($alpha);
                map2!(S, n, dy.as_ptr(), x.as_ptr(), dx.as_mut_ptr(), |dy, $x| {
                    S::mul(dy, $slope)
                });
            }
        }
    };
}

grad_kernel!(silu_grad_part, |x, alpha| math::silu_and_slope::<S>(x, alpha).1);
grad_kernel!(gelu_tanh_grad_part, |x, _alpha| math::gelu_tanh_slope::<S>(x));
grad_kernel!(gelu_erf_grad_part, |x, _alpha| math::gelu_erf_slope::<S>(x));
