//! Tests of rows through two factors, against loops in f64.

use super::tests::{floats, poisoned};
use super::{Kronecker, KroneckerRows};
use crate::testing::{gpu, random_f32};
use crate::{DevicePtr, Gpu};

/// Sizes, whether P1 and P2 are there, and numbers of rows.
type Case = ([usize; 2], [bool; 2], &'static [usize]);

const BOTH: [bool; 2] = [true; 2];
const CASES: &[Case] = &[
    ([24, 24], BOTH, &[256, 257, 1000, 8192]),
    ([24, 24], [true, false], &[1000]),
    ([24, 24], [false, true], &[1000]),
    ([32, 48], BOTH, &[256, 1000]),
    ([32, 48], [true, false], &[257]),
    ([9, 64], BOTH, &[256, 1000]),
    ([9, 64], [true, false], &[257]),
    ([64, 9], BOTH, &[256, 1000]),
    ([64, 9], [true, false], &[257]),
    ([1, 64], BOTH, &[257, 8192]),
    ([64, 1], BOTH, &[257, 8192]),
    ([12, 128], BOTH, &[256, 1000]),
    ([12, 128], [true, false], &[257]),
    ([128, 16], BOTH, &[257]),
    ([48, 20], BOTH, &[257]),
    ([6, 38], BOTH, &[257]),
    ([56, 128], BOTH, &[257]),
    ([5, 7], BOTH, &[1, 256, 257, 8192]),
    ([5, 7], [true, false], &[257]),
    ([5, 7], [false, true], &[257]),
];

/// What rows, gradients and factors give.
#[derive(Default)]
struct Expected {
    y: Vec<f64>,
    /// P1 · X · P2ᵀ.
    turned: Vec<f64>,
    dx: Vec<f64>,
    of_factors: [Vec<f64>; 2],
    /// Sums over the rows of mean squares of what each adds to them: the sums themselves may be near 0.
    squares: [f64; 2],
}

/// a `[m, k]` · b `[k, n]`.
fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let mut to = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            let factor = a(i, l);
            to[i * n..][..n].iter_mut().enumerate().for_each(|(j, sum)| *sum += factor * b(l, j));
        }
    }
    to
}

fn expected([n1, n2]: [usize; 2], [p1, p2]: [&[f64]; 2], x: &[f32], dy: &[f32]) -> Expected {
    let of_factors = [vec![0.0; n1 * n1], vec![0.0; n2 * n2]];
    let mut all = Expected { of_factors, ..Expected::default() };
    for (x, g) in x.chunks(n1 * n2).zip(dy.chunks(n1 * n2)) {
        let [x, g] = [x, g].map(|row| move |i: usize, j: usize| f64::from(row[i * n2 + j]));
        let (left, left_turned) = (|i, k| p1[i * n1 + k], |k, i| p1[i * n1 + k]);
        let (right, right_turned) = (|j, l| p2[j * n2 + l], |l, j| p2[j * n2 + l]);
        let s = product([n1, n2, n2], x, right);
        let s = |i: usize, l: usize| s[i * n2 + l];
        let v = product([n1, n1, n2], left, g);
        let v = |i: usize, l: usize| v[i * n2 + l];
        let w = product([n1, n1, n2], left, x);
        all.y.extend(product([n1, n1, n2], left_turned, s));
        all.turned.extend(product([n1, n2, n2], |i, l| w[i * n2 + l], right_turned));
        all.dx.extend(product([n1, n2, n2], v, right_turned));
        let terms =
            [product([n1, n2, n1], s, |l, k| g(k, l)), product([n2, n1, n2], |j, i| x(i, j), v)];
        for (i, terms) in terms.into_iter().enumerate() {
            let sums = &mut all.of_factors[i];
            all.squares[i] += mean_square(&terms);
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
    }
    all
}

fn mean_square(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64
}

/// Within a few roundings to TF32 of elements that are typically as large as the root of `square`.
fn assert_near(what: &str, actual: &[f32], expected: &[f64], square: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let tolerance = 5e-3 * square.sqrt();
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs();
        assert!(error <= tolerance, "{what}, element {i}: {a}, expected {e}");
    }
}

/// Results of kernels: y, P1 · X · P2ᵀ, dX, dP1, dP2.
fn run(gpu: &Gpu, rows: &KroneckerRows, [x, dy]: [DevicePtr; 2]) -> [Vec<f32>; 5] {
    let Kronecker { left, right, n1, n2 } = rows.factors;
    let n = rows.rows * n1 * n2;
    let sizes = [n, n, n, n1 * n1, n2 * n2];
    let to = sizes.map(|n| poisoned(gpu, n));
    let at = [0, 1, 2, 3, 4].map(|i| to[i].ptr());
    rows.transform(gpu, x, at[0], false).unwrap();
    rows.transform(gpu, x, at[1], true).unwrap();
    let of_factors = [left.map(|_| at[3]), right.map(|_| at[4])];
    rows.gradients(gpu, [dy, x], at[2], of_factors).unwrap();
    [0, 1, 2, 3, 4].map(|i| floats(gpu, &to[i], sizes[i]))
}

fn check(gpu: &Gpu, ([n1, n2], has, all_rows): Case) {
    let data = [random_f32(1, n1 * n1), random_f32(2, n2 * n2)];
    let at = [0, 1].map(|i| gpu.upload(&data[i]).unwrap());
    let [left, right] = [0, 1].map(|i| has[i].then(|| at[i].ptr()));
    let wide = [0, 1].map(|i| {
        let n = [n1, n2][i];
        let identity = || (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
        let values = || data[i].iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        if has[i] { values() } else { identity() }
    });
    for n_rows in all_rows.iter().copied() {
        let what = format!("{n_rows} rows of {n1} × {n2}, {has:?}");
        let n = n_rows * n1 * n2;
        let (x, dy) = (random_f32(3, n), random_f32(4, n));
        let [x_at, dy_at] = [&x, &dy].map(|data| gpu.upload(data).unwrap());
        let inputs = [x_at.ptr(), dy_at.ptr()];
        let rows = KroneckerRows { factors: Kronecker { left, right, n1, n2 }, rows: n_rows };
        if !rows.fits(gpu, &inputs) {
            // Where a block has less shared memory than on datacenter devices.
            assert!(n1 * n2 > 1024, "{what}");
            continue;
        }
        let results = run(gpu, &rows, inputs);
        let expected = expected([n1, n2], [&wide[0], &wide[1]], &x, &dy);
        let of_rows = [("Y", &expected.y), ("turned", &expected.turned), ("dX", &expected.dx)];
        for ((name, values), result) in of_rows.into_iter().zip(&results) {
            assert_near(&format!("{what}: {name}"), result, values, mean_square(values));
        }
        for i in [0, 1].into_iter().filter(|i| has[*i]) {
            let what = format!("{what}: dP{}", i + 1);
            assert_near(&what, &results[3 + i], &expected.of_factors[i], expected.squares[i]);
        }
        let bits = |all: [Vec<f32>; 5]| all.map(|v| v.into_iter().map(f32::to_bits).collect());
        let again: [Vec<u32>; 5] = bits(run(gpu, &rows, inputs));
        assert!(bits(results) == again, "{what}: other results from the same");
    }
}

#[test]
fn rows_through_factors_and_their_gradients_are_those_of_loops() {
    let Some(gpu) = gpu() else { return };
    CASES.iter().for_each(|case| check(&gpu, *case));
}

#[test]
fn large_factors_are_refused() {
    let Some(gpu) = gpu() else { return };
    for [n1, n2] in [[0, 8], [129, 8], [8, 129], [128, 128]] {
        let factors = Kronecker { left: None, right: Some(DevicePtr(256)), n1, n2 };
        let rows = KroneckerRows { factors, rows: 300 };
        assert!(!rows.fits(&gpu, &[]), "{n1} {n2}");
        assert!(rows.gradients(&gpu, [DevicePtr::NULL; 2], DevicePtr::NULL, [None; 2]).is_err());
    }
}
