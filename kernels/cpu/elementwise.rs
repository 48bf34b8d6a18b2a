//! Elementwise operations on f32 slices of equal length.

use crate::pool::ThreadPool;
use crate::shared::SharedMut;
use crate::simd::{map1, map2, simd_fn};
use crate::{Isa, math};

/// Values below which an addition or product is not worth another thread.
const MIN_CHEAP: usize = 16_384;
/// The same for the functions made of exponentials.
const MIN_DEAR: usize = 4_096;

type Unary = fn(Isa, &[f32], &mut [f32]);
type Binary = fn(Isa, &[f32], &[f32], &mut [f32]);

fn unary(pool: &ThreadPool, isa: Isa, min: usize, x: &[f32], out: &mut [f32], f: Unary) {
    assert_eq!(x.len(), out.len(), "elementwise lengths");
    let shared = SharedMut::new(out);
    pool.for_each_chunk(x.len(), min, |range| {
        // SAFETY: the threads' ranges are disjoint.
        f(isa, &x[range.clone()], unsafe { shared.part(range) });
    });
}

fn binary(pool: &ThreadPool, isa: Isa, min: usize, xy: [&[f32]; 2], out: &mut [f32], f: Binary) {
    let [x, y] = xy;
    assert!(x.len() == out.len() && y.len() == out.len(), "elementwise lengths");
    let shared = SharedMut::new(out);
    pool.for_each_chunk(x.len(), min, |range| {
        // SAFETY: the threads' ranges are disjoint.
        f(isa, &x[range.clone()], &y[range.clone()], unsafe { shared.part(range) });
    });
}

macro_rules! unary_kernel {
    ($name:ident, |$x:ident| $f:expr) => {
        simd_fn! {
            fn $name<S>(x: &[f32], out: &mut [f32]) {
                map1!(S, out.len().min(x.len()), x.as_ptr(), out.as_mut_ptr(), |$x| $f);
            }
        }
    };
}

macro_rules! binary_kernel {
    ($vis:vis $name:ident, |$x:ident, $y:ident| $f:expr) => {
        simd_fn! {
            $vis fn $name<S>(x: &[f32], y: &[f32], out: &mut [f32]) {
                let n = out.len().min(x.len()).min(y.len());
                map2!(S, n, x.as_ptr(), y.as_ptr(), out.as_mut_ptr(), |$x, $y| $f);
            }
        }
    };
}

binary_kernel!(add_part, |x, y| S::add(x, y));
binary_kernel!(mul_part, |x, y| S::mul(x, y));
binary_kernel!(pub(crate) silu_mul_part, |x, y| S::mul(math::silu::<S>(x), y));
binary_kernel!(gelu_mul_part, |x, y| S::mul(math::gelu_tanh::<S>(x), y));
unary_kernel!(silu_part, |x| math::silu::<S>(x));
unary_kernel!(gelu_tanh_part, |x| math::gelu_tanh::<S>(x));
unary_kernel!(gelu_erf_part, |x| math::gelu_erf::<S>(x));
unary_kernel!(exp_part, |x| math::exp::<S>(x));
unary_kernel!(tanh_part, |x| math::tanh::<S>(x));
unary_kernel!(sigmoid_part, |x| math::sigmoid::<S>(x));

simd_fn! {
    pub(crate) fn add_assign_part<S>(x: &[f32], out: &mut [f32]) {
        let p = out.as_mut_ptr();
        map2!(S, out.len().min(x.len()), x.as_ptr(), p, p, |x, y| S::add(x, y));
    }
}

/// out = x + y. Panics when the lengths differ.
pub fn add(pool: &ThreadPool, isa: Isa, x: &[f32], y: &[f32], out: &mut [f32]) {
    binary(pool, isa, MIN_CHEAP, [x, y], out, add_part);
}

/// out += x. Panics when the lengths differ.
pub fn add_assign(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_CHEAP, x, out, add_assign_part);
}

/// out = x · y. Panics when the lengths differ.
pub fn mul(pool: &ThreadPool, isa: Isa, x: &[f32], y: &[f32], out: &mut [f32]) {
    binary(pool, isa, MIN_CHEAP, [x, y], out, mul_part);
}

/// out = silu(gate) · up, the gate of SwiGLU. Panics when the lengths differ.
pub fn silu_mul(pool: &ThreadPool, isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    binary(pool, isa, MIN_DEAR, [gate, up], out, silu_mul_part);
}

/// out = gelu(gate) · up with the tanh form, the gate of GeGLU. Panics when the lengths differ.
pub fn gelu_tanh_mul(pool: &ThreadPool, isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    binary(pool, isa, MIN_DEAR, [gate, up], out, gelu_mul_part);
}

/// out = x · sigmoid(x). Panics when the lengths differ.
pub fn silu(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_DEAR, x, out, silu_part);
}

/// out = 1 / (1 + e⁻ˣ). Panics when the lengths differ.
pub fn sigmoid(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_DEAR, x, out, sigmoid_part);
}

/// The tanh form of ONNX Gelu. Panics when the lengths differ.
pub fn gelu_tanh(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_DEAR, x, out, gelu_tanh_part);
}

/// The erf form of ONNX Gelu, to an absolute error of 2·10⁻⁷·|x|. Panics when the lengths differ.
pub fn gelu_erf(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_DEAR, x, out, gelu_erf_part);
}

/// out = eˣ to a relative error of 10⁻⁶; 0 below −87.3. Panics when the lengths differ.
pub fn exp(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_DEAR, x, out, exp_part);
}

/// out = tanh x. Panics when the lengths differ.
pub fn tanh(pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
    unary(pool, isa, MIN_DEAR, x, out, tanh_part);
}
