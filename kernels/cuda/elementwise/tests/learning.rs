//! What a step of learning does besides products: sums over many rows, rounding, inverses. Sizes are on
//! both sides of where another kernel is chosen; every kernel must give the same bits each time.

use super::super::*;
use super::{assert_near, floats, poisoned};
use crate::testing::{gpu, random_f32};
use crate::{DeviceBuffer, Gpu};

/// Runs twice what fills buffers of `sizes` floats, and returns what is in them.
fn twice(gpu: &Gpu, sizes: &[usize], run: &dyn Fn(&[DeviceBuffer])) -> Vec<Vec<f32>> {
    let once = || -> Vec<Vec<f32>> {
        let out: Vec<DeviceBuffer> = sizes.iter().map(|n| poisoned(gpu, *n)).collect();
        run(&out);
        out.iter().zip(sizes).map(|(at, n)| floats(gpu, at, *n)).collect()
    };
    let (first, again) = (once(), once());
    let bits = |all: &[Vec<f32>]| all.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&first) == bits(&again), "two runs differ");
    first
}

/// Checks elements of about the size of `size` against sums in f64.
fn assert_sums(actual: &[f32], expected: &[f64], size: f64) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - e).abs() <= 1e-5 * size, "element {i}: {a}, expected {e}");
    }
}

#[test]
fn gradients_of_norms_are_summed_over_any_number_of_rows() {
    let Some(gpu) = gpu() else { return };
    for (rows, n) in [(1, 5), (256, 33), (257, 576), (2000, 64), (8192, 70), (20_001, 9)] {
        for is_centered in [false, true] {
            check_norm_gradient(&gpu, (rows, n), is_centered);
        }
    }
}

fn check_norm_gradient(gpu: &Gpu, (rows, n): (usize, usize), is_centered: bool) {
    let (dy, x, scale) = (random_f32(1, rows * n), random_f32(2, rows * n), random_f32(3, n));
    let [dy_at, x_at, scale_at] = [&dy, &x, &scale].map(|data| gpu.upload(data).unwrap());
    let epsilon = 1e-5;
    let found = twice(gpu, &[rows * n, n, n], &|out| {
        let grad = NormGrad {
            dy: dy_at.ptr(),
            x: x_at.ptr(),
            scale: scale_at.ptr(),
            dx: out[0].ptr(),
            dscale: Some(out[1].ptr()),
            dbias: Some(out[2].ptr()),
            n,
            rows,
            epsilon,
            is_centered,
        };
        grad.run(gpu, Number::F32).unwrap();
    });
    let (mut dscale, mut dbias) = (vec![0.0; n], vec![0.0; n]);
    for (x, dy) in x.chunks(n).zip(dy.chunks(n)) {
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let mean = if is_centered { x.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let factor = 1.0 / (square + f64::from(epsilon)).sqrt();
        for (i, dy) in dy.iter().enumerate() {
            dscale[i] += f64::from(*dy) * (x[i] - mean) * factor;
            dbias[i] += f64::from(*dy);
        }
    }
    let size = (rows as f64).sqrt().max(4.0);
    assert_sums(&found[1], &dscale, size);
    assert_sums(&found[2], &dbias, size);
    assert!(found[0].iter().all(|x| x.is_finite()));
}

#[test]
fn long_axes_are_reduced_to_few_results_and_to_many() {
    let Some(gpu) = gpu() else { return };
    // Sizes before, along and behind the axis.
    let shapes = [
        [1, 2049, 1],
        [1, 8192, 1],
        [1, 24_577, 1],
        [3, 24_576, 1],
        [256, 2100, 1],
        [257, 2100, 1],
        [2, 5000, 3],
        [2, 5000, 40],
        [9, 600, 1],
        [1, 1_000_003, 1],
    ];
    for [outer, n, inner] in shapes {
        let x = random_f32(7, outer * n * inner);
        let at = gpu.upload(&x).unwrap();
        for op in [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::L1, Reduce::L2] {
            let found = twice(&gpu, &[outer * inner], &|out| {
                let from = (at.ptr(), &[outer, n, inner][..]);
                reduce(&gpu, (op, Number::F32), from, &[false, true, false], out[0].ptr()).unwrap();
            });
            let of = |result: usize| {
                let at = |i: usize| (result / inner * n + i) * inner + result % inner;
                reduced(op, &(0..n).map(|i| f64::from(x[at(i)])).collect::<Vec<_>>())
            };
            let expected: Vec<f64> = (0..outer * inner).map(of).collect();
            let size = expected.iter().fold((n as f64).sqrt(), |size, x| size.max(x.abs()));
            assert_sums(&found[0], &expected, if op == Reduce::Mean { 1.0 } else { size });
        }
    }
}

fn reduced(op: Reduce, x: &[f64]) -> f64 {
    let sum = |of: &dyn Fn(f64) -> f64| x.iter().map(|x| of(*x)).sum::<f64>();
    match op {
        Reduce::Mean => sum(&|x| x) / x.len() as f64,
        Reduce::Max => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduce::Min => x.iter().copied().fold(f64::INFINITY, f64::min),
        Reduce::L1 => sum(&f64::abs),
        Reduce::L2 => sum(&|x| x * x).sqrt(),
        _ => sum(&|x| x),
    }
}

#[test]
fn columns_are_rounded_as_the_rows_of_the_transpose() {
    let Some(gpu) = gpu() else { return };
    for (n, step) in [(255, 40), (256, 40), (576, 33), (1536, 7), (1537, 64), (300, 17_000)] {
        for (stacked, bits, is_asymmetric) in [(1, 4, false), (2, 4, true), (1, 8, true)] {
            check_columns(&gpu, [stacked, n, step], bits, is_asymmetric);
        }
    }
}

/// `[stacked, n, step]`: columns of n elements.
fn check_columns(gpu: &Gpu, sizes: [usize; 3], bits: u32, is_asymmetric: bool) {
    let [stacked, n, step] = sizes;
    let (groups, len) = (stacked * step, stacked * n * step);
    let turned = |data: &[f32]| -> Vec<f32> {
        (0..len).map(|i| data[(i / n / step * n + i % n) * step + i / n % step]).collect()
    };
    let (x, dy) = (random_f32(1, len), random_f32(2, len));
    let clips = |seed| random_f32(seed, groups).iter().map(|x| 0.65 + 0.25 * x).collect::<Vec<_>>();
    let (clip_max, clip_min) = (gpu.upload(&clips(3)).unwrap(), gpu.upload(&clips(4)).unwrap());
    let run = |x: &[f32], dy: &[f32], step: usize| {
        let (x, dy) = (gpu.upload(x).unwrap(), gpu.upload(dy).unwrap());
        twice(gpu, &[len, len, groups, groups], &|out| {
            let quantize = FakeQuantize {
                x: x.ptr(),
                clip_max: clip_max.ptr(),
                clip_min: clip_min.ptr(),
                clips_by_group: true,
                groups,
                n,
                step,
                bits,
                is_asymmetric,
            };
            quantize.run(gpu, Number::F32, out[0].ptr(), None).unwrap();
            let (of_max, of_min) = (out[2].ptr(), out[3].ptr());
            let grad = FakeQuantizeGrad { dy: dy.ptr(), of_max, of_min };
            quantize.run(gpu, Number::F32, out[1].ptr(), Some(grad)).unwrap();
        })
    };
    let columns = run(&x, &dy, step);
    let rows = run(&turned(&x), &turned(&dy), 1);
    assert!(turned(&columns[0]) == rows[0], "{sizes:?} of {bits} bits");
    assert_near(&turned(&columns[1]), &rows[1], 1e-4);
    assert_near(&columns[2], &rows[2], 1e-4);
    assert_near(&columns[3], &rows[3], 1e-4);
}

#[test]
fn inverses_of_every_size_are_inverses() {
    let Some(gpu) = gpu() else { return };
    for n in [1, 2, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 128, 129] {
        let matrices = 3;
        // Large elements on the other diagonal, so that every row is exchanged; not in the last one.
        let mut x = random_f32(n as u64, matrices * n * n);
        for i in 0..2 * n {
            let (matrix, row) = (i / n, i % n);
            x[(matrix * n + row) * n + (n - 1 - row)] += 0.5 * n as f32;
        }
        // The last one is singular.
        (0..n).for_each(|row| x[(2 * n + row) * n + n / 2] = 0.0);
        let at = gpu.upload(&x).unwrap();
        let found = twice(&gpu, &[x.len()], &|out| {
            inverse(&gpu, Number::F32, (at.ptr(), out[0].ptr()), (matrices, n)).unwrap();
        });
        let (x, y) = (x.chunks(n * n), found[0].chunks(n * n));
        for (matrix, (x, y)) in x.zip(y).enumerate() {
            if matrix == 2 {
                assert!(y.iter().all(|y| y.is_nan()), "a singular matrix of {n}");
                continue;
            }
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let product = |k: usize| f64::from(x[i * n + k]) * f64::from(y[k * n + j]);
                let (sum, want) = ((0..n).map(product).sum::<f64>(), f64::from(u8::from(i == j)));
                assert!((sum - want).abs() < 1e-4, "{n}: [{i}, {j}] of {matrix} is {sum}");
            }
        }
    }
}
