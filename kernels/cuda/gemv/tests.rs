//! Tests of products of few rows against plain loops.

use super::plan::ways;
use super::{DenseGemv, Gemv, QuantizedGemv, WeightOnlyGemv};
use crate::MoreOutput;
use crate::testing::{gpu, random_codes, random_f32};
use crate::{DeviceBuffer, DevicePtr, Element, Gpu, PackedWeights, WeightOrder};

const ELEMENTS: [Element; 3] = [Element::F16, Element::F32, Element::BF16];

/// Floats as the device stores them.
fn store(values: &[f32], element: Element) -> Vec<u8> {
    let bytes = |value: &f32| match element {
        Element::F32 => value.to_le_bytes().to_vec(),
        Element::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
        Element::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

fn read(bytes: &[u8], element: Element) -> Vec<f32> {
    match element {
        Element::F32 => {
            bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Element::F16 => {
            bytes.chunks(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        Element::BF16 => {
            bytes.chunks(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
    }
}

/// A float tensor on the device, and its values after rounding to its type.
struct Floats {
    device: DeviceBuffer,
    values: Vec<f32>,
}

impl Floats {
    fn new(gpu: &Gpu, seed: u64, n: usize, element: Element) -> Self {
        let bytes = store(&random_f32(seed, n), element);
        Self { device: gpu.upload(&bytes).unwrap(), values: read(&bytes, element) }
    }
}

/// Outputs that start as NaN, with room after each row.
struct Out {
    device: DeviceBuffer,
    shape: (usize, usize),
    stride: usize,
    element: Element,
}

impl Out {
    fn new(gpu: &Gpu, rows: usize, n: usize, element: Element) -> Self {
        let stride = n + 3;
        let device = gpu.upload(&vec![0xffu8; rows * stride * element.bytes()]).unwrap();
        Self { device, shape: (rows, n), stride, element }
    }

    fn ptr(&self) -> DevicePtr {
        self.device.ptr()
    }

    /// The values; nothing was written beside them.
    fn read(&self, gpu: &Gpu) -> Vec<f32> {
        let (rows, n) = self.shape;
        let size = rows * self.stride * self.element.bytes();
        let bytes: Vec<u8> = gpu.download(self.ptr(), size).unwrap();
        let all = read(&bytes, self.element);
        let rows = all.chunks(self.stride);
        assert!(rows.clone().all(|row| row[n..].iter().all(|value| value.is_nan())));
        rows.flat_map(|row| row[..n].to_vec()).collect()
    }
}

/// Weights on the device and their codes `[k, n]`.
struct Weights {
    packed: PackedWeights,
    codes: Vec<i8>,
    scale: Vec<f32>,
    scale_at: DeviceBuffer,
}

impl Weights {
    fn new(gpu: &Gpu, bits: u32, k: usize, n: usize, block_size: usize) -> Self {
        let codes = random_codes(5, k * n, bits);
        let raw: Vec<u8> = match bits {
            8 => codes.iter().map(|code| *code as u8).collect(),
            _ => codes
                .chunks(2)
                .map(|pair| pair[0] as u8 & 15 | (pair.get(1).copied().unwrap_or(0) as u8) << 4)
                .collect(),
        };
        let packed = PackedWeights::pack(gpu, &raw, bits, (k, n), WeightOrder::Kn).unwrap();
        let n_blocks = if block_size == 0 { 1 } else { k / block_size };
        let scale = random_f32(6, n_blocks * n);
        let scale_at = gpu.upload(&scale).unwrap();
        Self { packed, codes, scale, scale_at }
    }

    fn scale(&self, input: usize, output: usize, block_size: usize) -> f32 {
        let block = input.checked_div(block_size).unwrap_or(0);
        self.scale[block * self.packed.n + output]
    }
}

fn tolerance(element: Element) -> f64 {
    match element {
        Element::F32 => 3e-6,
        Element::F16 => 1e-3,
        Element::BF16 => 8e-3,
    }
}

/// Fails unless each value is near the expected one, measured by the size of what was summed.
fn assert_near(got: &[f32], expected: &[(f64, f64)], element: Element, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, (value, size))) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - value).abs();
        let allowed = tolerance(element) * (value.abs() + size.sqrt() + 1e-2);
        assert!(error <= allowed, "{what}: {got} for {value} at {i}");
    }
}

const SHAPES: [(usize, usize); 5] = [(64, 64), (70, 19), (96, 16), (320, 130), (2112, 48)];
const ROWS: [usize; 9] = [1, 2, 3, 7, 8, 9, 17, 40, 70];

/// Codes times `weights` by `multiply`, which must be exact.
fn check_codes(
    gpu: &Gpu,
    weights: &Weights,
    rows: usize,
    what: &str,
    mut multiply: impl FnMut(&QuantizedGemv<'_>),
) {
    let (bits, k, n) = (weights.packed.bits, weights.packed.k, weights.packed.n);
    let codes = random_codes(7, rows * k, bits);
    let a_scale = random_f32(8, rows);
    let (codes_at, a_scale_at) = (gpu.upload(&codes).unwrap(), gpu.upload(&a_scale).unwrap());
    let out = Out::new(gpu, rows, n, Element::F32);
    multiply(&QuantizedGemv {
        rows,
        k,
        codes: codes_at.ptr(),
        a_scale: a_scale_at.ptr(),
        weights: &weights.packed,
        w_scale: weights.scale_at.ptr(),
        block_size: 0,
        bias: None,
        residual: None,
        out: out.ptr(),
        out_stride: out.stride,
        more: &[],
        element: Element::F32,
    });
    for (i, got) in out.read(gpu).iter().enumerate() {
        let (row, output) = (i / n, i % n);
        let term = |j| i32::from(codes[row * k + j]) * i32::from(weights.codes[j * n + output]);
        let sum: i32 = (0..k).map(term).sum();
        let expected = sum as f32 * weights.scale[output] * a_scale[row];
        assert_eq!(*got, expected, "{what}, {bits} bits, {rows} × {k} × {n}, at {i}");
    }
}

#[test]
fn products_of_codes_are_exact() {
    let Some(gpu) = gpu() else { return };
    let gemv = Gemv::new();
    for bits in [4, 8] {
        for (k, n) in SHAPES {
            let weights = Weights::new(&gpu, bits, k, n, 0);
            for rows in ROWS {
                check_codes(&gpu, &weights, rows, "planned", |product| {
                    gemv.quantized(&gpu, product).unwrap();
                });
            }
        }
    }
}

#[test]
fn every_kernel_for_several_rows_is_exact() {
    let Some(gpu) = gpu() else { return };
    let gemv = Gemv::new();
    for bits in [4, 8] {
        for (k, n) in [(2112, 48), (1000, 330)] {
            let weights = Weights::new(&gpu, bits, k, n, 0);
            for rows in [1, 8, 9, 16, 31, 64] {
                let mut shapes = Vec::new();
                check_codes(&gpu, &weights, rows, "planned", |product| {
                    shapes = ways(gpu.properties(), &product.into(), rows);
                    gemv.quantized(&gpu, product).unwrap();
                });
                assert!(!shapes.is_empty());
                for shape in shapes {
                    check_codes(&gpu, &weights, rows, &format!("{shape:?}"), |product| {
                        gemv.quantized_by(&gpu, product, shape).unwrap();
                    });
                }
            }
        }
    }
}

/// What a product adds up: value and sum of squares of its terms.
fn expected(
    rows: usize,
    (k, n): (usize, usize),
    term: impl Fn(usize, usize, usize) -> f64,
    more: impl Fn(usize, usize) -> f64,
) -> Vec<(f64, f64)> {
    let sums = |i: usize| {
        let (row, output) = (i / n, i % n);
        let terms = (0..k).map(|j| term(row, j, output));
        let (sum, squares) = terms.fold((0.0, 0.0), |(s, q), t| (s + t, q + t * t));
        (sum + more(row, output), squares)
    };
    (0..rows * n).map(sums).collect()
}

#[test]
fn codes_with_blocks_bias_and_residual() {
    let Some(gpu) = gpu() else { return };
    let gemv = Gemv::new();
    for element in ELEMENTS {
        for (bits, k, n, block_size) in [
            (4, 192, 80, 32),
            (4, 384, 33, 96),
            (8, 256, 48, 64),
            (4, 2048, 64, 128),
            (8, 70, 19, 0),
        ] {
            let weights = Weights::new(&gpu, bits, k, n, block_size);
            for rows in [1, 5, 8, 12, 33] {
                let codes = random_codes(7, rows * k, 4);
                let a_scale = random_f32(8, rows);
                let (codes_at, a_scale_at) =
                    (gpu.upload(&codes).unwrap(), gpu.upload(&a_scale).unwrap());
                let bias = Floats::new(&gpu, 9, n, element);
                let residual = Floats::new(&gpu, 10, rows * n, element);
                let out = Out::new(&gpu, rows, n, element);
                let product = QuantizedGemv {
                    rows,
                    k,
                    codes: codes_at.ptr(),
                    a_scale: a_scale_at.ptr(),
                    weights: &weights.packed,
                    w_scale: weights.scale_at.ptr(),
                    block_size,
                    bias: Some(bias.device.ptr()),
                    residual: Some(residual.device.ptr()),
                    out: out.ptr(),
                    out_stride: out.stride,
                    more: &[],
                    element,
                };
                gemv.quantized(&gpu, &product).unwrap();
                let term = |row: usize, j: usize, output: usize| {
                    let product =
                        i32::from(codes[row * k + j]) * i32::from(weights.codes[j * n + output]);
                    f64::from(product)
                        * f64::from(weights.scale(j, output, block_size))
                        * f64::from(a_scale[row])
                };
                let more = |row: usize, output: usize| {
                    f64::from(bias.values[output]) + f64::from(residual.values[row * n + output])
                };
                let what = format!("{element:?}, {bits} bits, {rows} × {k} × {n} by {block_size}");
                assert_near(&out.read(&gpu), &expected(rows, (k, n), term, more), element, &what);
            }
        }
    }
}

#[test]
fn floats_times_packed_weights() {
    let Some(gpu) = gpu() else { return };
    let gemv = Gemv::new();
    for element in ELEMENTS {
        for (bits, k, n, block_size) in [
            (4, 192, 80, 32),
            (8, 288, 33, 96),
            (8, 256, 48, 64),
            (4, 70, 19, 0),
            (8, 100, 64, 0),
            (8, 2112, 48, 0),
        ] {
            let weights = Weights::new(&gpu, bits, k, n, block_size);
            for rows in [1, 2, 3, 8, 12, 33, 64] {
                let x = Floats::new(&gpu, 7, rows * k, element);
                let residual = Floats::new(&gpu, 10, rows * n, element);
                let out = Out::new(&gpu, rows, n, element);
                let product = WeightOnlyGemv {
                    rows,
                    k,
                    x: x.device.ptr(),
                    weights: &weights.packed,
                    w_scale: weights.scale_at.ptr(),
                    block_size,
                    bias: None,
                    residual: Some(residual.device.ptr()),
                    out: out.ptr(),
                    out_stride: out.stride,
                    more: &[],
                    element,
                };
                gemv.weight_only(&gpu, &product).unwrap();
                let term = |row: usize, j: usize, output: usize| {
                    f64::from(x.values[row * k + j])
                        * f64::from(weights.codes[j * n + output])
                        * f64::from(weights.scale(j, output, block_size))
                };
                let more = |row: usize, output: usize| f64::from(residual.values[row * n + output]);
                let what = format!("{element:?}, {bits} bits, {rows} × {k} × {n} by {block_size}");
                let once = out.read(&gpu);
                assert_near(&once, &expected(rows, (k, n), term, more), element, &what);
                gemv.weight_only(&gpu, &product).unwrap();
                assert_eq!(once, out.read(&gpu), "{what}: another result the second time");
            }
        }
    }
}

#[test]
fn several_outputs_share_their_input() {
    let Some(gpu) = gpu() else { return };
    let gemv = Gemv::new();
    let (k, n, starts) = (256, 100, [0, 40, 57, 99]);
    let weights = Weights::new(&gpu, 4, k, n, 0);
    for rows in [1, 8, 20, 70] {
        let codes = gpu.upload(&random_codes(7, rows * k, 4)).unwrap();
        let a_scale = gpu.upload(&random_f32(8, rows)).unwrap();
        let whole = Out::new(&gpu, rows, n, Element::F16);
        let ends = [40, 57, 99, n];
        let parts: Vec<Out> = starts
            .iter()
            .zip(ends)
            .map(|(start, end)| Out::new(&gpu, rows, end - start, Element::F16))
            .collect();
        let more: Vec<MoreOutput> = (1..4)
            .map(|i| MoreOutput { start: starts[i], to: parts[i].ptr(), stride: parts[i].stride })
            .collect();
        let mut product = QuantizedGemv {
            rows,
            k,
            codes: codes.ptr(),
            a_scale: a_scale.ptr(),
            weights: &weights.packed,
            w_scale: weights.scale_at.ptr(),
            block_size: 0,
            bias: None,
            residual: None,
            out: whole.ptr(),
            out_stride: whole.stride,
            more: &[],
            element: Element::F16,
        };
        gemv.quantized(&gpu, &product).unwrap();
        (product.out, product.out_stride, product.more) = (parts[0].ptr(), parts[0].stride, &more);
        gemv.quantized(&gpu, &product).unwrap();
        let whole = whole.read(&gpu);
        for ((start, end), part) in starts.iter().zip(ends).zip(&parts) {
            let expected: Vec<f32> =
                whole.chunks(n).flat_map(|row| row[*start..end].to_vec()).collect();
            assert_eq!(part.read(&gpu), expected);
        }
        // Out of order, or wider than the rows of its tensor.
        product.out_stride = 39;
        assert!(gemv.quantized(&gpu, &product).is_err());
        product.more = &[];
        assert!(gemv.quantized(&gpu, &product).is_err());
    }
}

#[test]
fn dense_weights() {
    let Some(gpu) = gpu() else { return };
    let gemv = Gemv::new();
    for element in ELEMENTS {
        for (k, n) in [(64, 64), (70, 19), (13, 8), (264, 40), (4504, 24), (1, 1)] {
            let w = Floats::new(&gpu, 4, k * n, element);
            let bias = Floats::new(&gpu, 9, n, element);
            for rows in [1, 2, 5, 8, 11] {
                let x = Floats::new(&gpu, 7, rows * k, element);
                let residual = Floats::new(&gpu, 10, rows * n, element);
                for trans_b in [false, true] {
                    let out = Out::new(&gpu, rows, n, element);
                    let product = DenseGemv {
                        rows,
                        k,
                        n,
                        x: x.device.ptr(),
                        w: w.device.ptr(),
                        trans_b,
                        bias: Some(bias.device.ptr()),
                        residual: Some(residual.device.ptr()),
                        out: out.ptr(),
                        out_stride: out.stride,
                        element,
                    };
                    gemv.dense(&gpu, &product).unwrap();
                    let term = |row: usize, j: usize, output: usize| {
                        let at = if trans_b { output * k + j } else { j * n + output };
                        f64::from(x.values[row * k + j]) * f64::from(w.values[at])
                    };
                    let more = |row: usize, output: usize| {
                        f64::from(bias.values[output])
                            + f64::from(residual.values[row * n + output])
                    };
                    let what = format!("{element:?}, {rows} × {k} × {n}, transposed: {trans_b}");
                    assert_near(
                        &out.read(&gpu),
                        &expected(rows, (k, n), term, more),
                        element,
                        &what,
                    );
                }
            }
        }
    }
}
