//! Loops over several slices at once, for kernels made by `simd_fn!`.

/// `zip_map!(S, n, [x: xs, y: ys] => [p, q], body)` reads `n` values at each of the pointers `xs`,
/// `ys` into the vectors `x`, `y`, and writes the vectors that `body` gives, an array, to `p` and
/// `q`. An output may be an input.
macro_rules! zip_map {
    ($s:ty, $n:expr, [$($v:ident: $x:expr),+] => [$($out:expr),+], $body:expr) => {{
        let n: usize = $n;
        let outs = [$($out),+];
        $(let $v: *const f32 = $x;)+
        let mut i = 0;
        while i + <$s>::LANES <= n {
            $(let $v = <$s>::load($v.add(i));)+
            for (out, value) in outs.iter().zip($body) {
                <$s>::store(out.add(i), value);
            }
            i += <$s>::LANES;
        }
        if i < n {
            let lanes = <$s>::first(n - i);
            $(let $v = <$s>::load_m($v.add(i), lanes);)+
            for (out, value) in outs.iter().zip($body) {
                <$s>::store_m(out.add(i), value, lanes);
            }
        }
    }};
}
pub(crate) use zip_map;

/// `zip_sum!(S, n, [x: xs, y: ys], count, body)` sums each vector of the array `body` over `n` values at
/// `xs` and `ys`, and gives `count` f32 sums. Where all inputs are zero, `body` must be zero.
macro_rules! zip_sum {
    ($s:ty, $n:expr, [$($v:ident: $x:expr),+], $count:literal, $body:expr) => {{
        let n: usize = $n;
        $(let $v: *const f32 = $x;)+
        let mut sums = [[<$s>::splat(0.0); $count]; 2];
        let mut i = 0;
        while i + 2 * <$s>::LANES <= n {
            for (half, sums) in sums.iter_mut().enumerate() {
                $(let $v = <$s>::load($v.add(i + half * <$s>::LANES));)+
                for (sum, value) in sums.iter_mut().zip($body) {
                    *sum = <$s>::add(*sum, value);
                }
            }
            i += 2 * <$s>::LANES;
        }
        while i < n {
            let lanes = <$s>::first((n - i).min(<$s>::LANES));
            $(let $v = <$s>::load_m($v.add(i), lanes);)+
            for (sum, value) in sums[0].iter_mut().zip($body) {
                *sum = <$s>::add(*sum, value);
            }
            i += <$s>::LANES;
        }
        let mut totals = [0.0f32; $count];
        for (k, total) in totals.iter_mut().enumerate() {
            *total = <$s>::reduce_add(<$s>::add(sums[0][k], sums[1][k]));
        }
        totals
    }};
}
pub(crate) use zip_sum;
