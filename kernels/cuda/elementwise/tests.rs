//! Tests on the device: fast forms against plain ones and against loops on the host. What each
//! operator means is tested in planish-kernels, against its reference evaluation.

use super::*;
use crate::testing::{gpu, random_f32};
use crate::{DeviceBuffer, DevicePtr, Gpu};

mod learning;

/// A buffer of `n` NaNs, so that what is not written shows.
pub(super) fn poisoned(gpu: &Gpu, n: usize) -> DeviceBuffer {
    gpu.upload(&vec![f32::NAN; n.max(1)]).unwrap()
}

pub(super) fn floats(gpu: &Gpu, at: &DeviceBuffer, n: usize) -> Vec<f32> {
    gpu.download(at.ptr(), n).unwrap()
}

fn assert_near(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * e.abs().max(1.0), "element {i}: {a}, expected {e}");
    }
}

#[test]
fn operands_are_broadcast_whatever_their_alignment() {
    let Some(gpu) = gpu() else { return };
    let shapes: [[&[usize]; 3]; 7] = [
        [&[64], &[64], &[64]],
        [&[7, 5], &[7, 5], &[7, 5]],
        [&[6, 8], &[8], &[6, 8]],
        [&[6, 8], &[], &[6, 8]],
        [&[6, 1], &[1, 8], &[6, 8]],
        [&[2, 1, 4, 1, 3], &[5, 1, 7, 3], &[2, 5, 4, 7, 3]],
        [&[3, 1, 16], &[1, 5, 16], &[3, 5, 16]],
    ];
    for [a, b, y] in shapes {
        for offset in [0, 1] {
            let sizes = [a, b, y].map(|shape| shape.iter().product::<usize>());
            let (x, z) = (random_f32(1, sizes[0] + 1), random_f32(2, sizes[1] + 1));
            let [x_at, z_at] = [&x, &z].map(|data| gpu.upload(data).unwrap());
            let out = poisoned(&gpu, sizes[2]);
            let from = |at: &DeviceBuffer| at.ptr().offset(4 * offset);
            let (left, right) = ((from(&x_at), a), (from(&z_at), b));
            binary(&gpu, Binary::Sub, Number::F32, left, right, (out.ptr(), y)).unwrap();
            let steps = [a, b].map(|shape| steps_to(shape, y));
            let at = |steps: &[usize], i| offset + place(i, y, steps);
            let expected: Vec<f32> =
                (0..sizes[2]).map(|i| x[at(&steps[0], i)] - z[at(&steps[1], i)]).collect();
            assert_eq!(floats(&gpu, &out, sizes[2]), expected, "{a:?} {b:?} {offset}");
        }
    }
}

/// Steps of a dense tensor along the axes of a shape that it is broadcast to.
fn steps_to(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let (mut steps, mut step) = (vec![0; target.len()], 1);
    for (i, size) in shape.iter().rev().enumerate() {
        steps[target.len() - 1 - i] = if *size == 1 { 0 } else { step };
        step *= size;
    }
    steps
}

/// Where element `i` of a dense tensor of shape `shape` lies under `steps`.
fn place(mut i: usize, shape: &[usize], steps: &[usize]) -> usize {
    let mut at = 0;
    for (size, step) in shape.iter().zip(steps).rev() {
        at += i % size * step;
        i /= size;
    }
    at
}

#[test]
fn copies_of_every_width_permute_and_repeat() {
    let Some(gpu) = gpu() else { return };
    let shapes =
        [vec![5, 7], vec![70, 130], vec![3, 33, 64], vec![2, 3, 4, 16], vec![4, 100, 3, 9]];
    for shape in shapes {
        for width in [1, 2, 4, 8] {
            for turn in 0..shape.len() {
                permute(&gpu, &shape, width, turn);
            }
        }
    }
}

fn permute(gpu: &Gpu, shape: &[usize], width: usize, turn: usize) {
    let n: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..n * width).map(|i| (i * 7 + i / 251) as u8).collect();
    let (from, to) = (gpu.upload(&bytes).unwrap(), poisoned(gpu, (n * width).div_ceil(4)));
    let strides = steps_to(shape, shape);
    let order: Vec<usize> = (0..shape.len()).map(|i| (i + turn) % shape.len()).collect();
    let turned: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
    let steps: Vec<usize> = order.iter().map(|axis| strides[*axis]).collect();
    let dense = steps_to(&turned, &turned);
    let axes: Vec<_> =
        (0..shape.len()).map(|i| (turned[i], [steps[i] as i64, dense[i] as i64])).collect();
    copy(gpu, width, from.ptr(), to.ptr(), &axes).unwrap();
    let got: Vec<u8> = gpu.download(to.ptr(), n * width).unwrap();
    let expected = (0..n).flat_map(|i| {
        let at = place(i, &turned, &steps) * width;
        bytes[at..at + width].to_vec()
    });
    assert!(got.into_iter().eq(expected), "{shape:?} of {width} bytes, turned by {turn}");
}

#[test]
fn norms_of_all_sizes_agree_with_the_plain_one() {
    let Some(gpu) = gpu() else { return };
    for (rows, n) in [(1, 4096), (3, 64), (9, 128), (1100, 512), (2, 9000), (2, 16_384), (5, 77)] {
        for is_centered in [false, true] {
            compare_norms(&gpu, rows, n, is_centered);
        }
    }
}

fn compare_norms(gpu: &Gpu, rows: usize, n: usize, is_centered: bool) {
    let data = |seed, n| gpu.upload(&random_f32(seed, n)).unwrap();
    let (x, skip, skip_bias) = (data(1, rows * n), data(2, rows * n), data(3, n));
    let (weight, bias) = (data(4, n), data(5, n));
    let out = || [rows * n, rows * n, rows, rows].map(|n| poisoned(gpu, n));
    let at = |buffer: &DeviceBuffer| Some(buffer.ptr());
    let norm = |[y, sum, mean, inverse]: &[DeviceBuffer; 4]| Norm {
        skip: at(&skip),
        skip_bias: at(&skip_bias),
        bias: at(&bias),
        sum: at(sum),
        mean: at(mean),
        inverse: at(inverse),
        is_centered,
        ..Norm::rms(x.ptr(), weight.ptr(), y.ptr(), (rows, n), 1e-5)
    };
    let (fast, plain) = (out(), out());
    norm(&fast).run(gpu, Number::F32).unwrap();
    norm(&plain).run_plain(gpu, Number::F32).unwrap();
    for (i, n) in [rows * n, rows * n, rows, rows].into_iter().enumerate() {
        assert_near(&floats(gpu, &fast[i], n), &floats(gpu, &plain[i], n), 1e-5);
    }
    // The plain one against sums in f64.
    let (mean, inverse) = (floats(gpu, &plain[2], rows), floats(gpu, &plain[3], rows));
    let (sums, y) = (floats(gpu, &plain[1], rows * n), floats(gpu, &plain[0], rows * n));
    let (w, b) = (floats(gpu, &weight, n), floats(gpu, &bias, n));
    for r in 0..rows {
        let row: Vec<f64> = sums[r * n..(r + 1) * n].iter().map(|v| f64::from(*v)).collect();
        let center = if is_centered { row.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let square = row.iter().map(|v| (v - center).powi(2)).sum::<f64>() / n as f64;
        let factor = 1.0 / (square + 1e-5).sqrt();
        assert_near(&[mean[r], inverse[r]], &[center as f32, factor as f32], 1e-5);
        let expected: Vec<f32> =
            (0..n).map(|i| ((row[i] - center) * factor) as f32 * w[i] + b[i]).collect();
        assert_near(&y[r * n..(r + 1) * n], &expected, 1e-5);
    }
}

const KERNELS: [ProductKernel; 4] =
    [ProductKernel::Plain, ProductKernel::Columns, ProductKernel::Dots, ProductKernel::Tiled];

#[test]
fn kernels_of_products_agree() {
    let Some(gpu) = gpu() else { return };
    for (m, k, n) in [(1, 5, 3), (4, 100, 33), (65, 70, 67), (128, 64, 64), (130, 1, 200)] {
        let (a, b) = (random_f32(1, m * k), random_f32(2, k * n));
        let turned: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
        let [a_at, b_at, turned_at] = [&a, &b, &turned].map(|data| gpu.upload(data).unwrap());
        let expected: Vec<f32> = (0..m * n)
            .map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum::<f32>() * 0.5)
            .collect();
        for (b, steps) in [(&b_at, [n as i64, 1]), (&turned_at, [1, k as i64])] {
            for kernel in KERNELS {
                let y = poisoned(&gpu, m * n);
                let batch = Walk::new(&[]).unwrap();
                let (a, b) = ((a_at.ptr(), [k as i64, 1]), (b.ptr(), steps));
                let product = Product { a, b, bias: None, y: y.ptr(), m, k, n, alpha: 0.5, batch };
                product.run_as(&gpu, Number::F32, kernel).unwrap();
                assert_near(&floats(&gpu, &y, m * n), &expected, 1e-5);
            }
        }
    }
}

#[test]
fn the_largest_of_a_long_row_is_found() {
    let Some(gpu) = gpu() else { return };
    let (rows, n) = (3, 128_256);
    let mut data = random_f32(1, rows * n);
    for (row, at) in [(0, 0), (1, n - 1), (2, 77_777)] {
        data[row * n + at] = 2.0;
    }
    data[2 * n + 99_999] = 2.0;
    let (x, y) = (gpu.upload(&data).unwrap(), gpu.alloc(8 * rows).unwrap());
    argmax(&gpu, Number::F32, x.ptr(), y.ptr(), (rows, n)).unwrap();
    let places: Vec<i64> = gpu.download(y.ptr(), rows).unwrap();
    assert_eq!(places, [0, n as i64 - 1, 77_777]);
}

#[test]
fn softmax_of_every_layout_sums_to_one() {
    let Some(gpu) = gpu() else { return };
    for sizes in [
        [5, 7, 1],
        [3, 2000, 1],
        [1030, 64, 1],
        [1100, 256, 1],
        [2, 9000, 1],
        [3, 2001, 1],
        [2, 30_000, 1],
        [2, 9, 40],
        [2, 600, 3],
    ] {
        let [outer, n, step] = sizes;
        let data = random_f32(1, outer * n * step);
        let (x, y) = (gpu.upload(&data).unwrap(), poisoned(&gpu, data.len()));
        softmax(&gpu, Number::F32, x.ptr(), y.ptr(), sizes, false).unwrap();
        let y = floats(&gpu, &y, data.len());
        for line in 0..outer * step {
            let at = |i: usize| (line / step * n + i) * step + line % step;
            let total: f64 = (0..n).map(|i| f64::from(data[at(i)]).exp()).sum();
            let expected: Vec<f32> =
                (0..n).map(|i| (f64::from(data[at(i)]).exp() / total) as f32).collect();
            let line: Vec<f32> = (0..n).map(|i| y[at(i)]).collect();
            assert_near(&line, &expected, 1e-6);
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let Some(gpu) = gpu() else { return };
    let x = poisoned(&gpu, 16);
    let (two, three): (&[usize], &[usize]) = (&[2], &[3]);
    let [a, b] = [two, three].map(|shape| (x.ptr(), shape));
    let add = binary(&gpu, Binary::Add, Number::F32, a, b, b);
    assert!(add.unwrap_err().to_string().contains("does not broadcast"));
    let exp = unary(&gpu, Unary::Exp, 0.0, Number::I64, x.ptr(), x.ptr(), 1);
    assert!(exp.unwrap_err().to_string().contains("floats only"));
    let alternating: Vec<_> =
        (0..14).map(|i| (2, [if i % 2 == 0 { 0 } else { 1 << i }, 5])).collect();
    assert!(copy(&gpu, 4, x.ptr(), x.ptr(), &alternating).is_err());
    assert!(copy(&gpu, 3, x.ptr(), x.ptr(), &[(1, [1, 1])]).is_err());
    assert!(argmax(&gpu, Number::F32, x.ptr(), x.ptr(), (1, 0)).is_err());
    assert!(Indices::new(DevicePtr::NULL, Number::F32).is_err());
}

/// Steps of AdamW on the host, as the CPU engine makes them.
fn moved(constants: AdamWConstants, value: &mut [f32], gradients: &[&[f32]], rates: &[f32]) {
    let AdamWConstants { beta_1, beta_2, epsilon } = constants;
    let (mut m, mut v) = (vec![0f32; value.len()], vec![0f32; value.len()]);
    for (step, (gradient, rate)) in gradients.iter().zip(rates).enumerate() {
        let step = step as i32 + 1;
        let correction = 1.0 / (1.0 - beta_2.powi(step)).sqrt();
        for (i, g) in gradient.iter().enumerate() {
            m[i] = beta_1 * m[i] + (1.0 - beta_1) * g;
            v[i] = beta_2 * v[i] + (1.0 - beta_2) * g * g;
            value[i] -=
                rate / (1.0 - beta_1.powi(step)) * m[i] / (v[i].sqrt() * correction + epsilon);
        }
    }
}

#[test]
fn adamw_moves_every_tensor_that_has_a_finite_gradient() {
    let Some(gpu) = gpu() else { return };
    let constants = AdamWConstants { beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8 };
    let sizes = [3, 10_000, 4096, 5];
    let start = |i: usize| random_f32(i as u64, sizes[i]);
    let gradient = |step: usize, i: usize| random_f32((10 * step + i) as u64, sizes[i]);
    let values: Vec<DeviceBuffer> = (0..4).map(|i| gpu.upload(&start(i)).unwrap()).collect();
    let mut adamw = AdamW::new(&gpu, &sizes, constants).unwrap();
    let factors = [1.0, 0.5, 0.25, 0.125];
    for (step, factor) in factors.iter().enumerate() {
        let gradients: Vec<DeviceBuffer> = (0..4)
            .map(|i| {
                let mut data = gradient(step, i);
                if i == 1 && step == 1 {
                    data[7000] = f32::INFINITY;
                }
                gpu.upload(&data).unwrap()
            })
            .collect();
        let tensor = |i: usize| Moved {
            value: values[i].ptr(),
            gradient: (i != 3).then(|| gradients[i].ptr()),
            rate: 0.1 * (i + 1) as f32,
        };
        adamw.step(&gpu, &[0, 1, 2, 3].map(tensor), *factor).unwrap();
        gpu.synchronize().unwrap();
    }
    for (i, value) in values.iter().enumerate() {
        let mut expected = start(i);
        let steps: Vec<usize> = (0..4).filter(|step| i != 3 && (i != 1 || *step != 1)).collect();
        let gradients: Vec<Vec<f32>> = steps.iter().map(|step| gradient(*step, i)).collect();
        let gradients: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
        let rates: Vec<f32> = steps.iter().map(|s| 0.1 * (i + 1) as f32 * factors[*s]).collect();
        moved(constants, &mut expected, &gradients, &rates);
        assert_near(&floats(&gpu, value, sizes[i]), &expected, 1e-4);
    }
}

#[test]
fn kronecker_products_and_their_gradients_are_those_of_loops() {
    let Some(gpu) = gpu() else { return };
    for (n1, n2, has_right) in [(3, 5, true), (9, 64, false), (24, 24, true), (2, 40, true)] {
        let n = n1 * n2;
        let (left, right, dy) =
            (random_f32(1, n1 * n1), random_f32(2, n2 * n2), random_f32(3, n * n));
        let [left_at, right_at, dy_at] = [&left, &right, &dy].map(|data| gpu.upload(data).unwrap());
        let right_at = has_right.then(|| right_at.ptr());
        let of_right = |j: usize, l: usize| match has_right {
            true => right[j * n2 + l],
            false => f32::from(u8::from(j == l)),
        };
        let (mut product, mut of_p1, mut of_p2) =
            (vec![0f32; n * n], vec![0f32; n1 * n1], vec![0f32; n2 * n2]);
        for (row, column) in (0..n).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let (i, j, k, l) = (row / n2, row % n2, column / n2, column % n2);
            let at = row * n + column;
            product[at] = left[i * n1 + k] * of_right(j, l);
            of_p1[i * n1 + k] += dy[at] * of_right(j, l);
            of_p2[j * n2 + l] += dy[at] * left[i * n1 + k];
        }
        let factors = Kronecker { left: Some(left_at.ptr()), right: right_at, n1, n2 };
        let (y, dp1, dp2) =
            (poisoned(&gpu, n * n), poisoned(&gpu, n1 * n1), poisoned(&gpu, n2 * n2));
        factors.product(&gpu, y.ptr()).unwrap();
        factors.left_gradient(&gpu, dy_at.ptr(), dp1.ptr()).unwrap();
        factors.right_gradient(&gpu, dy_at.ptr(), dp2.ptr()).unwrap();
        assert_eq!(floats(&gpu, &y, n * n), product);
        assert_near(&floats(&gpu, &dp1, n1 * n1), &of_p1, 1e-4);
        assert_near(&floats(&gpu, &dp2, n2 * n2), &of_p2, 1e-4);
    }
}
