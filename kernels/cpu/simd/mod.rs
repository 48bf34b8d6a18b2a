//! One set of f32 vector operations with a form for each instruction set, and the macro that
//! compiles a kernel written on it for all of them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dot;
mod scalar;
mod zip;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use dot::Dot;
pub(crate) use scalar::Scalar;
pub(crate) use zip::{zip_map, zip_sum};

/// Vectors of `LANES` f32 values.
///
/// The operations are `inline(always)` and take their instruction set from the function they end
/// up in, so they are only called from kernels made by [`simd_fn!`](crate::simd::simd_fn), which
/// checks the machine. That rule is what makes the register-only ones safe.
pub(crate) trait Simd: Dot {
    /// A vector.
    type F: Copy;
    /// The first lanes of a vector.
    type M: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Vectors across the widest register tile of a matrix product.
    const TILE_VECTORS: usize;

    fn splat(x: f32) -> Self::F;
    /// The first `n` lanes, `n` from 0 to `LANES`.
    fn first(n: usize) -> Self::M;
    /// # Safety
    /// `LANES` values can be read at `p`.
    unsafe fn load(p: *const f32) -> Self::F;
    /// # Safety
    /// `LANES` values can be written at `p`.
    unsafe fn store(p: *mut f32, v: Self::F);
    /// Loads the lanes of `m`, zeros elsewhere.
    /// # Safety
    /// The lanes of `m` can be read at `p`.
    unsafe fn load_m(p: *const f32, m: Self::M) -> Self::F;
    /// # Safety
    /// The lanes of `m` can be written at `p`.
    unsafe fn store_m(p: *mut f32, v: Self::F, m: Self::M);
    /// Loads `LANES` integers, takes `minus` from each, and converts them.
    /// # Safety
    /// `LANES` values can be read at `p`.
    unsafe fn load_i32(p: *const i32, minus: i32) -> Self::F;
    /// # Safety
    /// `LANES` values can be read at `p`.
    unsafe fn load_u8(p: *const u8) -> Self::F;
    /// Loads `LANES` bytes at `p`: the low nibbles, then the high nibbles.
    /// # Safety
    /// `LANES` bytes can be read at `p`.
    unsafe fn load_nibbles(p: *const u8) -> (Self::F, Self::F);
    /// Stores the first `n` lanes, which hold whole numbers, as bytes (the low 8 bits).
    /// # Safety
    /// `n` values can be written at `p`.
    unsafe fn store_bytes(p: *mut i8, v: Self::F, n: usize);
    /// Writes the transpose of the `LANES` x `LANES` block at `src` to `dst`.
    /// # Safety
    /// The block can be read, and written, with the strides given in elements.
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize);

    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    /// a·b + c.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(a: Self::F, b: Self::F) -> Self::F;
    fn min(a: Self::F, b: Self::F) -> Self::F;
    fn abs(a: Self::F) -> Self::F;
    /// The nearest whole number, halves to even.
    fn round(a: Self::F) -> Self::F;
    /// 1/a to a relative error of 2⁻²², for `a` in the normal range below 2¹²⁶.
    fn recip(a: Self::F) -> Self::F;
    /// 2ⁿ for whole `n` from −126 to 127.
    fn pow2(n: Self::F) -> Self::F;
    /// `x` where a < b, `y` elsewhere.
    fn select_lt(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// Whether a > b in any lane.
    fn any_gt(a: Self::F, b: Self::F) -> bool;
    fn reduce_add(a: Self::F) -> f32;
    fn reduce_max(a: Self::F) -> f32;
    fn reduce_min(a: Self::F) -> f32;
}

/// Defines a function that takes the [`Isa`](crate::Isa) first and runs the body, which is generic
/// over a [`Simd`] type, compiled for that instruction set.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$s:ident>($($arg:ident: $ty:ty),* $(,)?)
        $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, unused_unsafe)]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn generic<$s: $crate::simd::Simd>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: each kernel keeps its accesses inside the ranges its callers pass.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                generic::<$crate::simd::Avx512>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                generic::<$crate::simd::Avx2>($($arg),*)
            }
            match isa.clamped() {
                // SAFETY: `clamped` returns only levels that the machine offers.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 | $crate::Isa::Amx => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => generic::<$crate::simd::Scalar>($($arg),*),
            }
        }
    };
}
pub(crate) use simd_fn;

/// `map1!(S, n, x, out, |v| body)` writes `body` of each of `n` values at `x` to `out`, which may
/// be `x`. A macro and not a function of a closure, since closures are not sure to be inlined, and
/// only inlined code gets the instruction set.
macro_rules! map1 {
    ($s:ty, $n:expr, $x:expr, $out:expr, |$v:ident| $body:expr) => {{
        let (n, x, out): (usize, *const f32, *mut f32) = ($n, $x, $out);
        let mut i = 0;
        while i + <$s>::LANES <= n {
            let $v = <$s>::load(x.add(i));
            <$s>::store(out.add(i), $body);
            i += <$s>::LANES;
        }
        if i < n {
            let lanes = <$s>::first(n - i);
            let $v = <$s>::load_m(x.add(i), lanes);
            <$s>::store_m(out.add(i), $body, lanes);
        }
    }};
}
pub(crate) use map1;

/// `map2!(S, n, x, y, out, |v, w| body)` is [`map1!`] of two inputs; `out` may be either.
macro_rules! map2 {
    ($s:ty, $n:expr, $x:expr, $y:expr, $out:expr, |$v:ident, $w:ident| $body:expr) => {{
        let (n, x, y, out): (usize, *const f32, *const f32, *mut f32) = ($n, $x, $y, $out);
        let mut i = 0;
        while i + <$s>::LANES <= n {
            let ($v, $w) = (<$s>::load(x.add(i)), <$s>::load(y.add(i)));
            <$s>::store(out.add(i), $body);
            i += <$s>::LANES;
        }
        if i < n {
            let lanes = <$s>::first(n - i);
            let ($v, $w) = (<$s>::load_m(x.add(i), lanes), <$s>::load_m(y.add(i), lanes));
            <$s>::store_m(out.add(i), $body, lanes);
        }
    }};
}
pub(crate) use map2;

/// `sum1!(S, n, x, |acc, v| body)` folds `n` values at `x` into four vectors that start at 0, and
/// adds those up; zeros must leave `acc` as it is.
macro_rules! sum1 {
    ($s:ty, $n:expr, $x:expr, |$acc:ident, $v:ident| $body:expr) => {{
        let (n, x): (usize, *const f32) = ($n, $x);
        let mut sums = [<$s>::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * <$s>::LANES <= n {
            for (part, sum) in sums.iter_mut().enumerate() {
                let ($acc, $v) = (*sum, <$s>::load(x.add(i + part * <$s>::LANES)));
                *sum = $body;
            }
            i += 4 * <$s>::LANES;
        }
        while i < n {
            let lanes = <$s>::first((n - i).min(<$s>::LANES));
            let ($acc, $v) = (sums[0], <$s>::load_m(x.add(i), lanes));
            sums[0] = $body;
            i += <$s>::LANES;
        }
        <$s>::reduce_add(<$s>::add(<$s>::add(sums[0], sums[1]), <$s>::add(sums[2], sums[3])))
    }};
}
pub(crate) use sum1;
