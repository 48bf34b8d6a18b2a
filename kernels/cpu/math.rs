//! Vector forms of the exponential and of the activation functions built on it.

use crate::simd::Simd;

/// eˣ to a relative error of about 2⁻²²; 0 below −87.3, and capped at e⁸⁸ above.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, and a Taylor polynomial of degree 7 for eʳ.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: S::F) -> S::F {
    let low = S::splat(-87.3);
    let clamped = S::max(S::min(x, S::splat(88.0)), low);
    let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has few enough bits for n times it to be exact.
    let r = S::fma(n, S::splat(-355.0 / 512.0), clamped);
    let r = S::fma(n, S::splat(2.121_944_4e-4), r);
    let mut p = S::splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = S::fma(p, r, S::splat(c));
    }
    S::select_lt(x, low, S::splat(0.0), S::mul(p, S::pow2(n)))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(x: S::F) -> S::F {
    let e = exp::<S>(S::min(S::sub(S::splat(0.0), x), S::splat(80.0)));
    S::recip(S::add(S::splat(1.0), e))
}

/// x · sigmoid(x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(x: S::F) -> S::F {
    S::mul(x, sigmoid::<S>(x))
}

/// The tanh form of GELU, 0.5·x·(1 + tanh u) = x·sigmoid(2u), u = √(2/π)·(x + 0.044715·x³).
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(x: S::F) -> S::F {
    let twice_root = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
    let cubic = S::fma(S::mul(x, x), S::splat(0.044_715 * twice_root), S::splat(twice_root));
    S::mul(x, sigmoid::<S>(S::mul(x, cubic)))
}

/// GELU, 0.5·x·(1 + erf(x/√2)), with erf by Abramowitz and Stegun 7.1.26 (error 1.5·10⁻⁷).
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(x: S::F) -> S::F {
    let (half, _) = normal_tail::<S>(x);
    S::mul(x, S::select_lt(x, S::splat(0.0), half, S::sub(S::splat(1.0), half)))
}

/// (1 − erf(|x|/√2)) / 2, the normal distribution's mass past |x|, and e^(−x²/2).
#[inline(always)]
fn normal_tail<S: Simd>(x: S::F) -> (S::F, S::F) {
    let one = S::splat(1.0);
    let z = S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = S::recip(S::fma(S::min(z, S::splat(1e6)), S::splat(0.327_591_1), one));
    let mut p = S::splat(1.061_405_4);
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6, 0.0] {
        p = S::fma(p, t, S::splat(c));
    }
    let bell = exp::<S>(S::sub(S::splat(0.0), S::mul(z, z)));
    (S::mul(S::splat(0.5), S::mul(p, bell)), bell)
}

/// tanh x to an absolute error of 2⁻²¹; a series near 0 keeps the relative error small there.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: S::F) -> S::F {
    let one = S::splat(1.0);
    let e = exp::<S>(S::min(S::add(x, x), S::splat(80.0)));
    let far = S::sub(one, S::mul(S::splat(2.0), S::recip(S::add(one, e))));
    let square = S::mul(x, x);
    let mut p = S::splat(62.0 / 2835.0);
    for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = S::fma(p, square, S::splat(c));
    }
    S::select_lt(S::abs(x), S::splat(0.25), S::mul(x, p), far)
}

/// sigmoid(x) and 1 − sigmoid(x) = sigmoid(−x), the latter without cancellation.
#[inline(always)]
fn sigmoid_and_rest<S: Simd>(x: S::F) -> (S::F, S::F) {
    let e = exp::<S>(S::min(S::sub(S::splat(0.0), x), S::splat(80.0)));
    let s = S::recip(S::add(S::splat(1.0), e));
    (s, S::mul(e, s))
}

/// x·s, s = sigmoid(alpha·x), and its derivative s·(1 + alpha·x·(1 − s)). The factor alpha·x of the
/// derivative is held within ±80, past which its product with s·(1 − s) vanishes.
#[inline(always)]
pub(crate) fn silu_and_slope<S: Simd>(x: S::F, alpha: S::F) -> (S::F, S::F) {
    let inner = S::mul(alpha, x);
    let (s, rest) = sigmoid_and_rest::<S>(inner);
    let held = S::max(S::min(inner, S::splat(80.0)), S::splat(-80.0));
    (S::mul(x, s), S::mul(s, S::fma(held, rest, S::splat(1.0))))
}

/// The derivative of [`gelu_tanh`]: s + x·s·(1 − s)·v', with s = sigmoid(v), v = 2u.
#[inline(always)]
pub(crate) fn gelu_tanh_slope<S: Simd>(x: S::F) -> S::F {
    let twice_root = 2.0 * (2.0 / std::f32::consts::PI).sqrt();
    let (linear, cubic) = (S::splat(twice_root), 0.044_715 * twice_root);
    // Past ±100 the sigmoid is 0 or 1 and the slope with it.
    let x = S::max(S::min(x, S::splat(100.0)), S::splat(-100.0));
    let square = S::mul(x, x);
    let (s, rest) = sigmoid_and_rest::<S>(S::mul(x, S::fma(square, S::splat(cubic), linear)));
    let inner = S::fma(square, S::splat(3.0 * cubic), linear);
    S::mul(s, S::fma(S::mul(x, rest), inner, S::splat(1.0)))
}

/// The derivative of [`gelu_erf`]: Φ(x) + x·φ(x), with the normal distribution and its density.
#[inline(always)]
pub(crate) fn gelu_erf_slope<S: Simd>(x: S::F) -> S::F {
    let (zero, one) = (S::splat(0.0), S::splat(1.0));
    // Past ±20 the slope is 0 or 1.
    let x = S::max(S::min(x, S::splat(20.0)), S::splat(-20.0));
    let (half, bell) = normal_tail::<S>(x);
    let density = S::mul(
        bell,
        S::splat(0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2),
    );
    S::fma(x, density, S::select_lt(x, zero, half, S::sub(one, half)))
}
