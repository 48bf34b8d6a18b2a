//! `gemm` in both precisions against f64 loops.

mod common;

use common::*;
use planish_cpu::ProductPrecision::{BF16, F32};
use planish_cpu::*;

const FACTORS: [(f32, f32); 3] = [(1.0, 0.0), (0.5, 1.0), (2.0, -0.5)];

/// Sizes around those of tiles, panels and the largest depth packed at once.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 40, 3),
    (16, 32, 16),
    (17, 33, 15),
    (32, 64, 32),
    (33, 31, 65),
    (64, 96, 31),
    (70, 100, 130),
    (300, 576, 96),
    (5, 2100, 40),
    (40, 4097, 33),
    (500, 24, 24),
];

/// x rounded to bfloat16, to nearest, halves to even: the upper half of the bits.
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// alpha · Σ_k a·b + beta · c in f64, of factors that `f` was applied to; with each element, the
/// same sum of absolute values.
fn product(
    a: MatRef<'_>,
    b: MatRef<'_>,
    (alpha, beta): (f32, f32),
    c: &[f32],
    f: fn(f32) -> f32,
) -> Vec<(f64, f64)> {
    let read = |x: MatRef<'_>, along_rows: bool| -> Vec<f64> {
        let x = if along_rows { x } else { x.t() };
        let at = |i: usize| x.data[i / x.cols * x.row_stride + i % x.cols * x.col_stride];
        (0..x.rows * x.cols).map(|i| f64::from(f(at(i)))).collect()
    };
    let (left, right, k) = (read(a, true), read(b, false), a.cols);
    let cell = |i: usize| {
        let (row, col) = (&left[i / b.cols * k..][..k], &right[i % b.cols * k..][..k]);
        let products = || row.iter().zip(col).map(|(x, y)| x * y);
        let old = if beta == 0.0 { 0.0 } else { f64::from(beta) * f64::from(c[i]) };
        let sizes = f64::from(alpha.abs()) * products().map(f64::abs).sum::<f64>() + old.abs();
        (f64::from(alpha) * products().sum::<f64>() + old, sizes)
    };
    (0..a.rows * b.cols).map(cell).collect()
}

/// Fails unless each value is within `tolerance` times the sizes that were summed.
#[track_caller]
fn assert_near(got: &[f32], want: &[(f64, f64)], tolerance: f64, what: &str) {
    for (i, (&g, &(w, size))) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= tolerance * size + 1e-30, "{what}: [{i}] is {g}, not {w}");
    }
}

/// Views of random matrices of this shape in every layout: rows or columns contiguous, dense or
/// inside a larger matrix, and neither.
fn layouts(data: &[f32], rows: usize, cols: usize) -> [MatRef<'_>; 4] {
    [
        MatRef::new(data, rows, cols),
        MatRef::new(data, cols, rows).t(),
        MatRef::with_stride(data, cols, rows, rows + 3).t(),
        MatRef { data, rows, cols, row_stride: 2 * cols + 1, col_stride: 2 },
    ]
}

#[test]
fn bf16_products_are_exact_but_for_the_rounding_of_factors() {
    let mut random = Random::new(21);
    for (m, k, n) in SHAPES {
        let a = random.floats((2 * k + 4) * (2 * m + 4));
        let b = random.floats((2 * k + 4) * (2 * n + 4));
        let c = random.floats(m * n);
        for (i, a) in layouts(&a, m, k).into_iter().enumerate() {
            for (j, b) in layouts(&b, k, n).into_iter().enumerate() {
                let factors = FACTORS[(i + j) % 3];
                let want = product(a, b, factors, &c, rounded);
                for isa in isas().into_iter().filter(|isa| multiplies_bf16(*isa)) {
                    let mut got = c.clone();
                    if factors.1 == 0.0 {
                        got.fill(f32::NAN);
                    }
                    let target = MatMut::new(&mut got, m, n);
                    gemm(pool(), isa, BF16, factors.0, a, b, factors.1, target);
                    let what = format!("{isa:?} {m} {k} {n}, layouts {i} and {j}");
                    assert_near(&got, &want, 2e-6, &what);
                }
            }
        }
    }
}

#[test]
fn bf16_products_are_near_those_of_the_factors_as_given() {
    let mut random = Random::new(22);
    let (m, k, n) = (48, 200, 40);
    let (a, b) = (random.floats(m * k), random.floats(k * n));
    let (a, b) = (MatRef::new(&a, m, k), MatRef::new(&b, k, n));
    let want = product(a, b, (1.0, 0.0), &[], |x| x);
    for isa in isas() {
        let mut got = vec![0.0; m * n];
        gemm(pool(), isa, BF16, 1.0, a, b, 0.0, MatMut::new(&mut got, m, n));
        // Each of the two factors is off by at most one part in 2⁹.
        assert_near(&got, &want, 1.0 / 256.0, &format!("{isa:?}"));
    }
}

#[test]
fn small_integers_multiply_exactly() {
    let mut random = Random::new(23);
    for (m, k, n) in SHAPES {
        let mut integers = |len: usize| -> Vec<f32> {
            random.codes(len, -60, 60).into_iter().map(f32::from).collect()
        };
        let (a, b) = (integers(m * k), integers(k * n));
        let (a, b) = (MatRef::new(&a, m, k), MatRef::new(&b, n, k).t());
        let want: Vec<f32> =
            product(a, b, (1.0, 0.0), &[], |x| x).into_iter().map(|(w, _)| w as f32).collect();
        for isa in isas() {
            for precision in [F32, BF16] {
                let mut got = vec![f32::NAN; m * n];
                gemm(pool(), isa, precision, 1.0, a, b, 0.0, MatMut::new(&mut got, m, n));
                assert!(got == want, "{isa:?} {precision:?} {m} {k} {n}");
            }
        }
    }
}

#[test]
fn halves_round_to_even() {
    // 1 + 2⁻⁸ lies halfway between 1 and 1 + 2⁻⁷, 1 + 3·2⁻⁸ between 1 + 2⁻⁷ and 1 + 2⁻⁶.
    let a = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0 - 1.0 / 256.0];
    for isa in isas().into_iter().filter(|isa| multiplies_bf16(*isa)) {
        let mut got = [0.0; 3];
        let (a, one) = (MatRef::new(&a, 3, 1), MatRef::new(&[1.0], 1, 1));
        gemm(pool(), isa, BF16, 1.0, a, one, 0.0, MatMut::new(&mut got, 3, 1));
        assert_eq!(got, [1.0, 1.0 + 1.0 / 64.0, -1.0], "{isa:?}");
    }
}

#[test]
fn infinities_and_nans_pass_through() {
    let a = [f32::INFINITY, 1.0, f32::NAN, 1.0, f32::MAX, 0.0];
    for isa in isas().into_iter().filter(|isa| multiplies_bf16(*isa)) {
        let mut got = [0.0; 3];
        let (a, b) = (MatRef::new(&a, 3, 2), MatRef::new(&[1.0, 1.0], 2, 1));
        gemm(pool(), isa, BF16, 1.0, a, b, 0.0, MatMut::new(&mut got, 3, 1));
        assert!(got[0] == f32::INFINITY && got[1].is_nan(), "{isa:?} {got:?}");
        assert_eq!(got[2], f32::INFINITY, "the largest f32 rounds up");
    }
}

#[test]
fn gemm_keeps_to_its_part_of_a_larger_matrix() {
    let mut random = Random::new(24);
    let (m, k, n) = (37, 50, 43);
    let (a, b) = (random.floats(m * k), random.floats(k * n));
    let (a, b) = (MatRef::new(&a, m, k), MatRef::new(&b, k, n));
    let want = product(a, b, (1.0, 0.0), &[], rounded);
    for isa in isas().into_iter().filter(|isa| multiplies_bf16(*isa)) {
        let mut c = vec![9.0; m * 50];
        gemm(pool(), isa, BF16, 1.0, a, b, 0.0, MatMut::with_stride(&mut c, m, n, 50));
        for (row, want) in c.chunks(50).zip(want.chunks(n)) {
            assert_near(&row[..n], want, 2e-6, "strided");
            assert!(row[n..].iter().all(|&x| x == 9.0));
        }
    }
}

#[test]
fn empty_products() {
    for isa in isas() {
        let (a, b) = (MatRef::new(&[], 2, 0), MatRef::new(&[], 0, 2));
        let mut c = [1.0, 2.0, 3.0, 4.0];
        gemm(pool(), isa, BF16, 1.0, a, b, 0.5, MatMut::new(&mut c, 2, 2));
        assert_eq!(c, [0.5, 1.0, 1.5, 2.0]);
        let (a, b) = (MatRef::new(&[], 0, 3), MatRef::new(&[1.0; 6], 3, 2));
        gemm(pool(), isa, BF16, 1.0, a, b, 0.0, MatMut::new(&mut [], 0, 2));
    }
}
