//! Every kernel against plain loops in f64.

use half::{bf16, f16};

use super::*;
use crate::testing::{gpu, random_f32};
use crate::{DeviceBuffer, DevicePtr, Element, Gpu};

/// A host tensor as the device has it, and what its elements are after rounding.
fn upload(gpu: &Gpu, element: Element, data: &mut [f32]) -> DeviceBuffer {
    match element {
        Element::F32 => gpu.upload(data).unwrap(),
        Element::F16 => {
            let rounded: Vec<u16> = data.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
            data.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
            gpu.upload(&rounded).unwrap()
        }
        Element::BF16 => {
            let rounded: Vec<u16> = data.iter().map(|x| bf16::from_f32(*x).to_bits()).collect();
            data.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
            gpu.upload(&rounded).unwrap()
        }
    }
}

fn download(gpu: &Gpu, element: Element, at: DevicePtr, n: usize) -> Vec<f32> {
    match element {
        Element::F32 => gpu.download(at, n).unwrap(),
        Element::F16 => {
            let bits: Vec<u16> = gpu.download(at, n).unwrap();
            bits.iter().map(|x| f16::from_bits(*x).to_f32()).collect()
        }
        Element::BF16 => {
            let bits: Vec<u16> = gpu.download(at, n).unwrap();
            bits.iter().map(|x| bf16::from_bits(*x).to_f32()).collect()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Plain,
    Norm,
    AddNorm,
    SwiGlu,
    /// Gate and up as halves of one tensor.
    Halves,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    n1: usize,
    n2: usize,
    from: From,
    factors: (bool, bool),
    factor: Element,
    /// `None`: values.
    bits: Option<u32>,
    clips: (f32, f32),
    element: Element,
    /// What the rows are multiplied by.
    size: f32,
}

const CASE: Case = Case {
    rows: 5,
    n1: 64,
    n2: 64,
    from: From::Norm,
    factors: (true, true),
    factor: Element::F32,
    bits: Some(4),
    clips: (1.0, 1.0),
    element: Element::F16,
    size: 1.0,
};

/// Roughly normal numbers.
fn normal(seed: u64, n: usize) -> Vec<f32> {
    let u = random_f32(seed, 4 * n);
    u.chunks(4).map(|u| u.iter().sum::<f32>() * 0.87).collect()
}

/// A matrix that is no rotation, but not far from one.
fn matrix(seed: u64, n: usize) -> Vec<f32> {
    let scale = (n as f32).sqrt().recip();
    normal(seed, n * n)
        .iter()
        .enumerate()
        .map(|(i, x)| x * scale + f32::from(u8::from(i % (n + 1) == 0)))
        .collect()
}

struct Data {
    buffers: Vec<DeviceBuffer>,
    _packed: Option<PackedFactors>,
    rows: TransformRows,
    /// Before the transform.
    x: Vec<f64>,
    sum: Vec<f32>,
    p1: Option<Vec<f32>>,
    p2: Option<Vec<f32>>,
}

impl Case {
    fn n(&self) -> usize {
        self.n1 * self.n2
    }

    fn data(&self, gpu: &Gpu) -> Data {
        let (n, rows, element) = (self.n(), self.rows, self.element);
        let mut buffers = Vec::new();
        let mut put = |element, data: &mut [f32]| {
            buffers.push(upload(gpu, element, data));
            buffers.last().map_or(DevicePtr::NULL, DeviceBuffer::ptr)
        };
        let mut a = normal(1, rows * n);
        let mut b = normal(2, rows * n);
        a.iter_mut().chain(&mut b).for_each(|x| *x *= self.size);
        let mut weight: Vec<f32> = random_f32(3, n).iter().map(|w| 1.0 + w * 0.5).collect();
        let epsilon = 1e-5;
        let (mut x, mut sum) = (Vec::new(), Vec::new());
        let poison = vec![f32::NAN; rows * n];
        let source = match self.from {
            From::Plain => RowSource::Plain { x: put(element, &mut a) },
            From::Norm => RowSource::RmsNorm {
                x: put(element, &mut a),
                weight: put(element, &mut weight),
                epsilon,
                add: None,
            },
            From::AddNorm => RowSource::RmsNorm {
                x: put(element, &mut a),
                weight: put(element, &mut weight),
                epsilon,
                add: Some((put(element, &mut b), put(element, &mut poison.clone()))),
            },
            From::SwiGlu => RowSource::SwiGlu {
                gate: put(element, &mut a),
                up: put(element, &mut b),
                stride: n,
            },
            From::Halves => {
                let mut both: Vec<f32> = a
                    .chunks(n)
                    .zip(b.chunks(n))
                    .flat_map(|(a, b)| a.iter().chain(b).copied())
                    .collect();
                let gate = put(element, &mut both);
                a = both.chunks(2 * n).flat_map(|row| row[..n].to_vec()).collect();
                b = both.chunks(2 * n).flat_map(|row| row[n..].to_vec()).collect();
                RowSource::SwiGlu { gate, up: gate.offset(n * element.bytes()), stride: 2 * n }
            }
        };
        for (a, b) in a.chunks(n).zip(b.chunks(n)) {
            match self.from {
                From::Plain => x.extend(a.iter().map(|x| f64::from(*x))),
                From::SwiGlu | From::Halves => x.extend(a.iter().zip(b).map(|(gate, up)| {
                    let (gate, up) = (f64::from(*gate), f64::from(*up));
                    gate / (1.0 + (-gate).exp()) * up
                })),
                From::Norm | From::AddNorm => {
                    let added = self.from == From::AddNorm;
                    let row: Vec<f32> =
                        a.iter().zip(b).map(|(x, y)| if added { x + y } else { *x }).collect();
                    let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
                    let inverse = 1.0 / (squares / n as f64 + f64::from(epsilon)).sqrt();
                    x.extend(
                        row.iter()
                            .zip(&weight)
                            .map(|(x, w)| f64::from(*x) * inverse * f64::from(*w)),
                    );
                    sum.extend(row);
                }
            }
        }
        let mut p1 = self.factors.0.then(|| matrix(5, self.n1));
        let mut p2 = self.factors.1.then(|| matrix(6, self.n2));
        let mut factors = Factors {
            p1: p1.as_mut().map(|p| put(self.factor, p)),
            p2: p2.as_mut().map(|p| put(self.factor, p)),
            element: self.factor,
            packed: None,
        };
        let output = match self.bits {
            None => Output::Values(put(element, &mut poison.clone())),
            Some(bits) => {
                let poison = vec![f32::NAN; rows * n];
                let codes = put(Element::F32, &mut poison.clone());
                let scales = put(Element::F32, &mut poison.clone());
                let (clip_min, clip_max) = self.clips;
                Output::Codes { bits, clip_min, clip_max, codes, scales }
            }
        };
        // Every second size has them packed beforehand.
        let packed = (!self.n1.is_multiple_of(3))
            .then(|| PackedFactors::new(gpu, self.n1, self.n2, &factors).unwrap());
        gpu.synchronize().unwrap();
        factors.packed = packed.as_ref().map(PackedFactors::ptr);
        let rows =
            TransformRows { rows, n1: self.n1, n2: self.n2, source, factors, output, element };
        Data { buffers, _packed: packed, rows, x, sum, p1, p2 }
    }

    /// Runs by a method; compares everything. Returns the share of codes that differ.
    fn check(&self, gpu: &Gpu, method: Option<Method>) -> f64 {
        let data = self.data(gpu);
        self.check_data(gpu, &data, method.unwrap_or_else(|| data.rows.method(gpu)))
    }

    fn check_data(&self, gpu: &Gpu, data: &Data, method: Method) -> f64 {
        data.rows.launch_by(gpu, method).unwrap();
        let (n, y) = (self.n(), data.expected());
        if let RowSource::RmsNorm { add: Some((_, sum)), .. } = data.rows.source {
            let got = download(gpu, self.element, sum, self.rows * n);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() * 0.005;
            assert!(got.iter().zip(&data.sum).all(close), "{self:?} {method:?}: sums");
        }
        match data.rows.output {
            Output::Values(out) => {
                let got = download(gpu, self.element, out, self.rows * n);
                let error: f64 = got.iter().zip(&y).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
                let norm: f64 = y.iter().map(|b| b * b).sum();
                let relative = (error / norm).sqrt();
                let limit = if self.element == Element::BF16 { 3e-3 } else { 6e-4 };
                assert!(relative < limit, "{self:?} {method:?}: error {relative}");
                relative
            }
            Output::Codes { bits, codes, scales, .. } => {
                let codes: Vec<i8> = gpu.download(codes, self.rows * n).unwrap();
                let scales: Vec<f32> = gpu.download(scales, self.rows).unwrap();
                let mut differ = 0;
                for (r, row) in y.chunks(n).enumerate() {
                    let (expected, scale) = quantised(row, bits, self.clips);
                    let relative = f64::from(scales[r]) / scale - 1.0;
                    // A value that is mostly one product is rounded four times.
                    let limit = if bits > 4 { 1e-5 } else { 2e-3 };
                    assert!(
                        relative.abs() < limit,
                        "{self:?} {method:?}: scale {} of {scale}",
                        scales[r]
                    );
                    for (i, (a, b)) in codes[r * n..][..n].iter().zip(&expected).enumerate() {
                        differ += usize::from(a != b);
                        let apart = i32::from(*a) - i32::from(*b);
                        assert!(apart.abs() <= 1, "{self:?} {method:?}: row {r}, {i}: {a} for {b}");
                    }
                }
                let share = differ as f64 / (self.rows * n) as f64;
                eprintln!("{:.4}% of codes differ: {self:?} {method:?}", share * 100.0);
                // One in a thousand, and what chance adds where there are few.
                let n = (self.rows * n) as f64 * 1e-3;
                assert!(
                    differ as f64 <= n + 3.0 * n.sqrt() + 2.0,
                    "{self:?} {method:?}: {share} differ"
                );
                share
            }
        }
    }
}

impl Data {
    fn expected(&self) -> Vec<f64> {
        assert!(!self.buffers.is_empty());
        let (n1, n2) = (self.rows.n1, self.rows.n2);
        let mut y = Vec::new();
        for row in self.x.chunks(n1 * n2) {
            let mut z = row.to_vec();
            if let Some(p2) = &self.p2 {
                let mut product = vec![0.0; n1 * n2];
                for a in 0..n1 {
                    for k in 0..n2 {
                        let x = z[a * n2 + k];
                        for b in 0..n2 {
                            product[a * n2 + b] += x * f64::from(p2[k * n2 + b]);
                        }
                    }
                }
                z = product;
            }
            if let Some(p1) = &self.p1 {
                let mut product = vec![0.0; n1 * n2];
                for k in 0..n1 {
                    for a in 0..n1 {
                        let p = f64::from(p1[k * n1 + a]);
                        for b in 0..n2 {
                            product[a * n2 + b] += p * z[k * n2 + b];
                        }
                    }
                }
                z = product;
            }
            y.extend(z);
        }
        y
    }
}

fn quantised(row: &[f64], bits: u32, (clip_min, clip_max): (f32, f32)) -> (Vec<i8>, f64) {
    let q_max = f64::from((1 << (bits - 1)) - 1);
    let low = row.iter().copied().fold(f64::INFINITY, f64::min);
    let high = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let magnitude = (f64::from(clip_max) * high).max(-f64::from(clip_min) * low);
    let scale = magnitude.max(1e-8) / q_max;
    let code = |x: &f64| (x / scale).round_ties_even().clamp(-q_max - 1.0, q_max) as i8;
    (row.iter().map(code).collect(), scale)
}

#[test]
fn the_reference_kernel_does_as_plain_loops() {
    let Some(gpu) = gpu() else { return };
    for element in [Element::F32, Element::F16, Element::BF16] {
        for from in [From::Plain, From::Norm, From::AddNorm, From::SwiGlu, From::Halves] {
            let case = Case { element, from, n1: 12, n2: 10, bits: Some(8), ..CASE };
            case.check(&gpu, Some(Method::Reference));
            Case { factors: (true, false), clips: (0.8, 0.9), ..case }
                .check(&gpu, Some(Method::Reference));
            Case { factors: (false, true), bits: None, ..case }
                .check(&gpu, Some(Method::Reference));
            Case { factors: (false, false), bits: Some(4), ..case }
                .check(&gpu, Some(Method::Reference));
        }
    }
    Case { n1: 128, n2: 256, rows: 2, ..CASE }.check(&gpu, Some(Method::Reference));
}

#[test]
fn codes_are_those_of_plain_loops_for_all_sizes() {
    let Some(gpu) = gpu() else { return };
    let sizes = [
        (24, 24),
        (32, 48),
        (48, 32),
        (64, 64),
        (9, 64),
        (48, 64),
        (80, 112),
        (86, 128),
        (7, 20),
        (16, 16),
        (64, 80),
        (17, 34),
        (3, 5),
        (64, 96),
        (32, 64),
    ];
    for (n1, n2) in sizes {
        for bits in [4, 8] {
            Case { n1, n2, bits: Some(bits), ..CASE }.check(&gpu, None);
        }
    }
    for (n1, n2) in [(112, 128), (128, 148), (108, 128)] {
        for bits in [4, 8] {
            Case { n1, n2, bits: Some(bits), from: From::SwiGlu, ..CASE }.check(&gpu, None);
        }
    }
    Case { n1: 128, n2: 224, rows: 3, from: From::Halves, ..CASE }.check(&gpu, None);
    Case { n1: 128, n2: 256, rows: 3, ..CASE }.check(&gpu, None);
}

#[test]
fn sources_types_factors_and_outputs_go_together() {
    let Some(gpu) = gpu() else { return };
    for from in [From::Plain, From::Norm, From::AddNorm, From::SwiGlu, From::Halves] {
        for element in [Element::F16, Element::BF16, Element::F32] {
            for factor in [element, Element::F32] {
                for factors in [(true, true), (true, false), (false, true), (false, false)] {
                    for bits in [Some(4), Some(8), None] {
                        let case =
                            Case { from, element, factor, factors, bits, n1: 24, n2: 40, ..CASE };
                        case.check(&gpu, None);
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_any_number_range_and_clipping() {
    let Some(gpu) = gpu() else { return };
    for rows in [1, 7, 133, 700] {
        let worst = Case { rows, n1: 32, n2: 48, ..CASE }.check(&gpu, None);
        assert!(worst <= 1e-3, "{worst}");
    }
    for size in [1e-6, 1e4, 0.0] {
        for from in [From::Plain, From::Norm] {
            Case { size, from, element: Element::BF16, ..CASE }.check(&gpu, None);
        }
    }
    for clips in [(0.7, 0.7), (1.0, 0.6), (0.5, 1.0)] {
        for bits in [4, 8] {
            Case { clips, bits: Some(bits), ..CASE }.check(&gpu, None);
            Case { clips, bits: Some(bits), factors: (false, false), ..CASE }.check(&gpu, None);
        }
    }
}

#[test]
fn every_shape_of_the_tensor_kernel_gives_the_same() {
    let Some(gpu) = gpu() else { return };
    let case = Case { rows: 40, from: From::AddNorm, ..CASE };
    let shapes = [
        (1, 1, true, false),
        (1, 3, false, false),
        (2, 3, true, false),
        (2, 1, false, true),
        (1, 3, true, true),
        (4, 1, true, false),
    ];
    for (tiles, groups, prefetch, split) in shapes {
        for p1_shared in [true, false] {
            let wgmma = tiles == 1 && gpu.properties().has_wgmma();
            for wgmma in [false, wgmma] {
                let shape = method::Tensor {
                    tiles,
                    groups,
                    resident: 1,
                    prefetch,
                    split,
                    p1_shared,
                    wgmma,
                    load: 8,
                };
                case.check(&gpu, Some(Method::Tensor(shape)));
            }
        }
    }
}

#[test]
fn products_of_warpgroups_of_every_size_give_the_same() {
    let Some(gpu) = gpu() else { return };
    if !gpu.properties().has_wgmma() {
        return;
    }
    let sizes = [
        (64, 64),
        (112, 128),
        (24, 24),
        (48, 64),
        (86, 128),
        (64, 80),
        (128, 144),
        (9, 40),
        (64, 112),
        (64, 96),
    ];
    let mut n_checked = 0;
    for (n1, n2) in sizes {
        for (from, bits) in [(From::AddNorm, Some(4)), (From::SwiGlu, Some(8)), (From::Plain, None)]
        {
            for factors in [(true, true), (true, false)] {
                let case = Case { n1, n2, from, bits, factors, rows: 9, ..CASE };
                let (p1_shared, split) = (true, bits == Some(8));
                let shape = method::Tensor {
                    tiles: 1,
                    groups: 2,
                    resident: 1,
                    prefetch: true,
                    split,
                    p1_shared,
                    wgmma: true,
                    load: 8,
                };
                let rows = case.data(&gpu).rows;
                let mut shapes =
                    [2, 1].map(|groups| method::Tensor { groups, ..shape }).into_iter();
                // Where no row fits, other kernels are used.
                if let Some(shape) = shapes.find(|shape| shape.fits(&gpu, &rows)) {
                    case.check(&gpu, Some(Method::Tensor(shape)));
                    n_checked += 1;
                }
            }
        }
    }
    assert!(n_checked > 40, "{n_checked}");
}

#[test]
fn sums_may_be_written_over_their_terms() {
    let Some(gpu) = gpu() else { return };
    for (rows, factors) in
        [(1, (true, true)), (9, (true, false)), (300, (true, true)), (9, (false, false))]
    {
        for bits in [Some(4), None] {
            let case = Case { rows, factors, bits, from: From::AddNorm, ..CASE };
            if bits.is_none() && factors == (false, false) {
                continue;
            }
            let mut data = case.data(&gpu);
            let RowSource::RmsNorm { x, weight, epsilon, add: Some((skip, _)) } = data.rows.source
            else {
                panic!("not the norm of a sum")
            };
            data.rows.source = RowSource::RmsNorm { x, weight, epsilon, add: Some((skip, x)) };
            case.check_data(&gpu, &data, data.rows.method(&gpu));
        }
    }
}

#[test]
fn clusters_of_every_size_give_the_same() {
    let Some(gpu) = gpu() else { return };
    if !gpu.properties().has_wgmma() {
        return;
    }
    let sizes = [
        (64, 64),
        (112, 128),
        (24, 24),
        (48, 64),
        (128, 224),
        (86, 128),
        (64, 80),
        (128, 144),
        (9, 40),
        (64, 112),
        (64, 96),
    ];
    for (n1, n2) in sizes {
        for (from, bits) in [(From::AddNorm, Some(4)), (From::SwiGlu, Some(8)), (From::Plain, None)]
        {
            for factors in [(true, true), (true, false)] {
                let case = Case { n1, n2, from, bits, factors, rows: 3, ..CASE };
                let most = case.data(&gpu).rows.cluster(&gpu);
                for blocks in 2..=most.unwrap_or(0) {
                    if n2.div_ceil(16).is_multiple_of(blocks) {
                        let split = bits == Some(8);
                        case.check(&gpu, Some(Method::Cluster { blocks, split }));
                    }
                }
            }
        }
    }
}

#[test]
fn blocks_of_every_size_give_the_same() {
    let Some(gpu) = gpu() else { return };
    let mut n_checked = 0;
    for (n1, n2) in [(64, 64), (24, 24), (28, 32), (48, 64), (32, 128), (9, 64), (128, 16), (9, 40)]
    {
        for (from, bits) in [(From::Norm, 4), (From::SwiGlu, 4), (From::Plain, 4), (From::Norm, 8)]
        {
            for factors in [(true, true), (true, false)] {
                for (element, clips) in [(Element::F16, (1.0, 1.0)), (Element::BF16, (0.8, 0.7))] {
                    let bits = Some(bits);
                    let case =
                        Case { n1, n2, from, bits, factors, element, clips, rows: 2, ..CASE };
                    let split = bits == Some(8);
                    if case.data(&gpu).rows.suits_block(&gpu, split) {
                        case.check(&gpu, Some(Method::Block { split }));
                        n_checked += 1;
                    }
                }
            }
        }
    }
    assert!(n_checked > 80, "only {n_checked} were checked");
}

#[test]
fn heads_are_transformed() {
    let Some(gpu) = gpu() else { return };
    for element in [Element::F16, Element::F32, Element::BF16] {
        for (rows, heads, d) in [(1, 1, 64), (7, 3, 64), (33, 8, 128), (5, 9, 80), (1, 4, 5)] {
            let n = rows * heads * d;
            let (mut x, mut p) = (normal(1, n), matrix(2, d));
            let on_device = upload(&gpu, element, &mut x);
            let matrix = upload(&gpu, Element::F32, &mut p);
            let y = upload(&gpu, element, &mut vec![f32::NAN; n]);
            let call = TransformHeads {
                rows,
                heads,
                d,
                x: on_device.ptr(),
                p: matrix.ptr(),
                factor: Element::F32,
                packed: None,
                y: y.ptr(),
                element,
            };
            call.launch(&gpu).unwrap();
            let got = download(&gpu, element, y.ptr(), n);
            let (mut error, mut norm) = (0.0, 0.0);
            for (x, y) in x.chunks(d).zip(got.chunks(d)) {
                for c in 0..d {
                    let expected: f64 =
                        (0..d).map(|r| f64::from(x[r]) * f64::from(p[r * d + c])).sum();
                    error += (expected - f64::from(y[c])).powi(2);
                    norm += expected * expected;
                }
            }
            let limit = if element == Element::BF16 { 3e-3 } else { 6e-4 };
            assert!((error / norm).sqrt() < limit, "{call:?}: {}", (error / norm).sqrt());
        }
    }
}

#[test]
fn heads_are_quantised_and_read_back() {
    let Some(gpu) = gpu() else { return };
    for element in [Element::F32, Element::F16, Element::BF16] {
        for (n_heads, d, bits) in [(1, 64, 4), (21, 128, 8), (300, 80, 4), (5, 7, 2)] {
            let mut x = normal(1, n_heads * d);
            let on_device = upload(&gpu, element, &mut x);
            let y = upload(&gpu, element, &mut vec![f32::NAN; n_heads * d]);
            let (clip_min, clip_max) = (0.9, 0.95);
            let call = QuantizeDequantizeHeads {
                n_heads,
                d,
                bits,
                clip_min,
                clip_max,
                x: on_device.ptr(),
                y: y.ptr(),
                element,
            };
            call.launch(&gpu).unwrap();
            let got = download(&gpu, element, y.ptr(), n_heads * d);
            for (x, y) in x.chunks(d).zip(got.chunks(d)) {
                let low = clip_min * x.iter().copied().fold(f32::INFINITY, f32::min);
                let high = clip_max * x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let q_max = ((1 << bits) - 1) as f32;
                let scale = (high - low).max(1e-8) / q_max;
                let zero = (-low / scale).round_ties_even();
                for (x, y) in x.iter().zip(y) {
                    let code = ((x / scale).round_ties_even() + zero).clamp(0.0, q_max);
                    let expected = (code - zero) * scale;
                    assert!(
                        (expected - y).abs() <= expected.abs() * 0.004,
                        "{call:?}: {y} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let Some(gpu) = gpu() else { return };
    let data = Case { rows: 1, ..CASE }.data(&gpu);
    assert!(TransformRows { n1: 1 << 12, n2: 1 << 12, ..data.rows }.launch(&gpu).is_err());
    assert!(TransformRows { n1: 0, ..data.rows }.launch(&gpu).is_err());
    assert!(TransformRows { rows: 0, ..data.rows }.launch(&gpu).is_ok());
    let output = Output::Codes {
        bits: 9,
        clip_min: 1.0,
        clip_max: 1.0,
        codes: DevicePtr::NULL,
        scales: DevicePtr::NULL,
    };
    assert!(TransformRows { output, ..data.rows }.launch(&gpu).is_err());
}
