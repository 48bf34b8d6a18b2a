//! Every kernel against the naive one, and that against loops on the host.

use super::wgmma::Size;
use super::{Gemm, QuantizedGemm, Route, Tiling, WeightOnlyGemm};
use crate::testing::{gpu, random_codes, random_f32};
use crate::{DeviceBuffer, Element, Gpu, MoreOutput, PackedWeights, WeightOrder};

/// A product's sizes and forms.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    k: usize,
    n: usize,
    bits: u32,
    code_bits: u32,
    block_size: usize,
    element: Element,
    /// With bias and residual, in rows longer than N.
    full: bool,
    /// Scales of 1: results are the integer sums.
    plain: bool,
}

impl Case {
    const fn new(rows: usize, k: usize, n: usize) -> Self {
        let element = Element::F16;
        Self { rows, k, n, bits: 4, code_bits: 8, block_size: 0, element, full: true, plain: false }
    }

    fn out_stride(&self) -> usize {
        match self.n % 8 {
            0 if self.full => self.n + 8,
            _ if self.full => self.n + 5,
            _ => self.n,
        }
    }

    fn groups(&self) -> usize {
        if self.block_size > 0 { self.k / self.block_size } else { 1 }
    }
}

/// A case's data, on the host and on the device.
struct Data {
    case: Case,
    codes: Vec<i8>,
    weights: Vec<i8>,
    a_scale: Vec<f32>,
    w_scale: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    x: Vec<f32>,
    on_device: [DeviceBuffer; 7],
    packed: PackedWeights,
}

const POISON: u8 = 0xFF; // NaN in every element type

impl Data {
    fn new(gpu: &Gpu, case: Case) -> Self {
        let Case { rows, k, n, bits, element, .. } = case;
        let codes = random_codes(1, rows * k, case.code_bits);
        let weights = random_codes(2, n * k, bits);
        let scales = |seed, len, by: f32| -> Vec<f32> {
            let scale = |v: &f32| if case.plain { 1.0 } else { (v + 1.5) * by };
            random_f32(seed, len).iter().map(scale).collect()
        };
        let a_scale = scales(3, rows, 0.01);
        let w_scale = scales(4, case.groups() * n, 0.01);
        let round = |data: Vec<f32>| from_bytes(element, &to_bytes(element, &data));
        let (bias, residual) = (round(random_f32(5, n)), round(random_f32(6, rows * n)));
        let x = round(random_f32(7, rows * k));
        let raw: Vec<u8> = match bits {
            8 => weights.iter().map(|c| *c as u8).collect(),
            _ => weights
                .chunks(2)
                .map(|p| (p[0] as u8 & 15) | (p.get(1).map_or(0, |c| *c as u8) << 4))
                .collect(),
        };
        let packed = PackedWeights::pack(gpu, &raw, bits, (k, n), WeightOrder::Nk).unwrap();
        let floats = |data: &[f32]| gpu.upload(&to_bytes(element, data)).unwrap();
        let out = gpu.alloc(rows * case.out_stride() * element.bytes()).unwrap();
        let on_device = [
            gpu.upload(&codes).unwrap(),
            gpu.upload(&a_scale).unwrap(),
            gpu.upload(&w_scale).unwrap(),
            floats(&bias),
            floats(&residual),
            floats(&x),
            out,
        ];
        Self { case, codes, weights, a_scale, w_scale, bias, residual, x, on_device, packed }
    }

    fn quantized(&self) -> QuantizedGemm<'_> {
        let case = self.case;
        let [codes, a_scale, w_scale, bias, residual, _, out] =
            self.on_device.each_ref().map(DeviceBuffer::ptr);
        QuantizedGemm {
            rows: case.rows,
            k: case.k,
            codes,
            code_bits: case.code_bits,
            a_scale,
            weights: &self.packed,
            w_scale,
            block_size: case.block_size,
            bias: case.full.then_some(bias),
            residual: case.full.then_some(residual),
            out,
            out_stride: case.out_stride(),
            more: &[],
            element: case.element,
        }
    }

    fn weight_only(&self) -> WeightOnlyGemm<'_> {
        let q = self.quantized();
        WeightOnlyGemm {
            rows: q.rows,
            k: q.k,
            x: self.on_device[5].ptr(),
            weights: q.weights,
            w_scale: q.w_scale,
            block_size: q.block_size,
            bias: q.bias,
            residual: q.residual,
            out: q.out,
            out_stride: q.out_stride,
            more: &[],
            element: q.element,
        }
    }

    /// Runs into a poisoned output: `[rows, n]`, and that nothing else was written.
    fn run(&self, gpu: &Gpu, work: impl FnOnce()) -> Vec<f32> {
        let (case, out) = (self.case, &self.on_device[6]);
        let n_bytes = case.rows * case.out_stride() * case.element.bytes();
        gpu.write(out.ptr(), &vec![POISON; n_bytes]).unwrap();
        work();
        let bytes: Vec<u8> = gpu.download(out.ptr(), n_bytes).unwrap();
        let values = from_bytes(case.element, &bytes);
        let mut result = Vec::new();
        for row in values.chunks(case.out_stride()) {
            result.extend_from_slice(&row[..case.n]);
            assert!(row[case.n..].iter().all(|v| v.is_nan()), "{case:?}: written beyond a row");
        }
        result
    }

    fn by(&self, gpu: &Gpu, gemm: &Gemm, route: Route) -> Vec<f32> {
        self.run(gpu, || gemm.quantized_by(gpu, &self.quantized(), route).unwrap())
    }

    /// One result on the host, of codes or of floats.
    fn expected(&self, m: usize, n: usize, weight_only: bool) -> f64 {
        let case = self.case;
        let size = if case.block_size > 0 { case.block_size } else { case.k };
        let mut value = 0.0;
        for k in 0..case.k {
            let a = match weight_only {
                true => f64::from(self.x[m * case.k + k]),
                false => f64::from(self.codes[m * case.k + k]) * f64::from(self.a_scale[m]),
            };
            let scale = f64::from(self.w_scale[k / size * case.n + n]);
            value += a * f64::from(self.weights[n * case.k + k]) * scale;
        }
        if case.full {
            value += f64::from(self.bias[n]) + f64::from(self.residual[m * case.n + n]);
        }
        value
    }
}

fn to_bytes(element: Element, data: &[f32]) -> Vec<u8> {
    data.iter()
        .flat_map(|v| match element {
            Element::F32 => v.to_le_bytes().to_vec(),
            Element::F16 => half::f16::from_f32(*v).to_le_bytes().to_vec(),
            Element::BF16 => half::bf16::from_f32(*v).to_le_bytes().to_vec(),
        })
        .collect()
}

fn from_bytes(element: Element, bytes: &[u8]) -> Vec<f32> {
    let value = |b: &[u8]| match element {
        Element::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Element::F16 => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
        Element::BF16 => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
    };
    bytes.chunks(element.bytes()).map(value).collect()
}

/// Relative steps of an element type, and room for sums in another order.
fn tolerance(element: Element) -> f32 {
    match element {
        Element::F32 => 2e-5,
        Element::F16 => 2e-3,
        Element::BF16 => 1.6e-2,
    }
}

#[track_caller]
fn assert_close(case: Case, what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32;
    let room = tolerance(case.element) * scale.sqrt();
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        let close = if case.plain { a == b } else { (a - b).abs() <= room.max(b.abs() * room) };
        let (m, n) = (i / case.n, i % case.n);
        assert!(close, "{case:?} by {what}: {a} for {b} at row {m}, output {n}");
    }
}

const TILINGS: [Tiling; 4] = [
    Tiling { rows: 128, blocks: 2, band: 8, split: 1 },
    Tiling { rows: 128, blocks: 1, band: 3, split: 1 },
    Tiling { rows: 64, blocks: 1, band: 2, split: 1 },
    Tiling { rows: 64, blocks: 2, band: 1, split: 1 },
];

const SIZES: [(usize, usize, usize); 7] = [
    (1, 64, 8),
    (7, 48, 17),
    (65, 144, 100),
    (130, 592, 264),
    (257, 1040, 392),
    (300, 2048, 520),
    (1000, 512, 1048),
];

#[test]
fn the_naive_kernels_are_right() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for (bits, block_size, element) in
        [(4, 0, Element::F32), (8, 0, Element::F16), (4, 32, Element::F32), (8, 96, Element::BF16)]
    {
        let case = Case { bits, block_size, element, ..Case::new(5, 192, 19) };
        let data = Data::new(&gpu, case);
        let codes = data.by(&gpu, &gemm, Route::Naive);
        let floats = data
            .run(&gpu, || gemm.weight_only_by(&gpu, &data.weight_only(), Route::Naive).unwrap());
        for (got, weight_only) in [(codes, false), (floats, true)] {
            let expected: Vec<f32> = (0..case.rows * case.n)
                .map(|i| data.expected(i / case.n, i % case.n, weight_only) as f32)
                .collect();
            assert_close(case, "the naive kernel", &got, &expected);
        }
    }
}

fn check(gpu: &Gpu, gemm: &Gemm, case: Case, routes: &[Route]) {
    let data = Data::new(gpu, case);
    let expected = data.by(gpu, gemm, Route::Naive);
    for route in routes {
        let got = data.by(gpu, gemm, *route);
        assert_close(case, &format!("{route:?}"), &got, &expected);
    }
}

#[test]
fn integer_sums_are_exact() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for (rows, k, n) in SIZES {
        for bits in [4, 8] {
            let element = Element::F32;
            let case = Case { bits, element, full: false, plain: true, ..Case::new(rows, k, n) };
            let mut routes = vec![Route::Mma];
            if gpu.properties().has_wgmma() {
                routes.extend(TILINGS.map(Route::Wgmma));
            }
            check(&gpu, &gemm, case, &routes);
        }
    }
}

#[test]
fn epilogues_scale_and_add() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for (rows, k, n) in SIZES {
        for (bits, element) in [(4, Element::F16), (8, Element::BF16), (4, Element::F32)] {
            for full in [true, false] {
                let case = Case { bits, element, full, ..Case::new(rows, k, n) };
                let mut routes = vec![Route::Mma];
                if gpu.properties().has_wgmma() {
                    routes.extend(TILINGS.map(Route::Wgmma));
                }
                check(&gpu, &gemm, case, &routes);
            }
        }
    }
}

#[test]
fn four_bit_tensor_cores_agree() {
    let Some(gpu) = gpu() else { return };
    if !matches!((gpu.properties().major, gpu.properties().minor), (8, _) | (9, 0)) {
        return;
    }
    let gemm = Gemm::new();
    for (k, block_size, element) in
        [(592, 0, Element::F16), (70, 0, Element::F32), (512, 128, Element::F32)]
    {
        let case = Case { code_bits: 4, block_size, element, ..Case::new(130, k, 264) };
        check(&gpu, &gemm, case, &[Route::MmaS4]);
    }
    let exact = Case {
        code_bits: 4,
        element: Element::F32,
        full: false,
        plain: true,
        ..Case::new(65, 592, 100)
    };
    check(&gpu, &gemm, exact, &[Route::MmaS4]);
}

#[test]
fn groups_have_scales_of_their_own() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for (k, block_size) in
        [(96, 32), (192, 96), (512, 128), (192, 64), (160, 160), (384, 192), (768, 256)]
    {
        for (bits, element) in [(4, Element::F16), (8, Element::F32)] {
            let case = Case { bits, block_size, element, ..Case::new(77, k, 136) };
            let mut routes = vec![Route::Mma];
            if gpu.properties().has_wgmma() && matches!(block_size, 64 | 128 | 256) {
                routes.extend([TILINGS[1], TILINGS[2]].map(Route::Wgmma));
            }
            check(&gpu, &gemm, case, &routes);
        }
    }
}

#[test]
fn any_number_of_inputs_is_taken() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for k in [1, 15, 33, 70, 130] {
        let case = Case::new(67, k, 72);
        let data = Data::new(&gpu, case);
        assert_eq!(Gemm::route(&gpu, &data.quantized()), Route::Mma);
        check(&gpu, &gemm, case, &[Route::Mma]);
    }
}

#[test]
fn floats_by_quantised_weights() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for element in [Element::F16, Element::BF16, Element::F32] {
        for bits in [4, 8] {
            for (rows, k, n, block_size) in
                [(1, 64, 8, 0), (65, 72, 100, 0), (300, 592, 264, 0), (67, 70, 31, 0)]
                    .into_iter()
                    .chain([(77, 96, 136, 32), (129, 512, 130, 128), (70, 192, 64, 96)])
            {
                let case = Case { bits, element, block_size, ..Case::new(rows, k, n) };
                let data = Data::new(&gpu, case);
                let q = data.weight_only();
                let run = |route| data.run(&gpu, || gemm.weight_only_by(&gpu, &q, route).unwrap());
                let expected = run(Route::Naive);
                let mut routes = vec![Route::Cores];
                if element != Element::F32 && k.is_multiple_of(8) {
                    routes.push(Route::Mma);
                    if gpu.properties().has_wgmma() && block_size != 96 {
                        let tilings = if block_size > 0 { &TILINGS[1..3] } else { &TILINGS[..3] };
                        routes.extend(tilings.iter().map(|t| Route::Wgmma(*t)));
                    }
                }
                for route in routes {
                    assert_close(case, &format!("{route:?}"), &run(route), &expected);
                }
            }
        }
    }
}

#[test]
fn the_output_may_be_the_residual() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    for n in [264, 100] {
        let data = Data::new(&gpu, Case::new(300, 592, n));
        let q = QuantizedGemm { out_stride: n, ..data.quantized() };
        let n_bytes = 300 * n * q.element.bytes();
        let run = |q: &QuantizedGemm<'_>, route| {
            gemm.quantized_by(&gpu, q, route).unwrap();
            from_bytes(q.element, &gpu.download::<u8>(q.out, n_bytes).unwrap())
        };
        let expected = run(&q, Route::Naive);
        let in_place = QuantizedGemm { residual: Some(q.out), ..q };
        for route in [Route::Naive, Route::Mma, Gemm::route(&gpu, &q)] {
            gpu.copy(data.on_device[4].ptr(), q.out, n_bytes).unwrap();
            assert_close(data.case, &format!("{route:?}"), &run(&in_place, route), &expected);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    let data = Data::new(&gpu, Case::new(3, 64, 8));
    let q = data.quantized();
    for wrong in [
        QuantizedGemm { k: 65, ..q },
        QuantizedGemm { out_stride: 7, ..q },
        QuantizedGemm { block_size: 48, ..q },
    ] {
        assert!(gemm.quantized(&gpu, &wrong).is_err());
    }
    assert!(gemm.quantized_by(&gpu, &QuantizedGemm { block_size: 32, ..q }, Route::MmaS4).is_err());
}

#[test]
fn blocks_share_a_tile() {
    let Some(gpu) = gpu() else { return };
    if !gpu.properties().has_wgmma() {
        return;
    }
    let gemm = Gemm::new();
    let tilings = [(128, 2), (64, 4), (128, 4)].map(|(rows, split)| Tiling {
        rows,
        blocks: 1,
        band: 8,
        split,
    });
    for (rows, k, n) in [(65, 640, 264), (257, 2000, 100)] {
        for (bits, element, plain) in
            [(4, Element::F16, false), (8, Element::BF16, false), (4, Element::F32, true)]
        {
            let case = Case { bits, element, plain, full: !plain, ..Case::new(rows, k, n) };
            check(&gpu, &gemm, case, &tilings.map(Route::Wgmma));
        }
        let case = Case::new(rows, k, n);
        let data = Data::new(&gpu, case);
        let q = data.weight_only();
        let run = |route| data.run(&gpu, || gemm.weight_only_by(&gpu, &q, route).unwrap());
        let expected = run(Route::Naive);
        for tiling in &tilings[..2] {
            let got = run(Route::Wgmma(*tiling));
            assert_close(case, &format!("floats, {tiling:?}"), &got, &expected);
        }
    }
    let small = Data::new(&gpu, Case::new(65, 192, 64));
    let route = Route::Wgmma(tilings[1]);
    assert!(gemm.quantized_by(&gpu, &small.quantized(), route).is_err(), "fewer steps than parts");
}

#[test]
fn few_tiles_are_cut_smaller() {
    let size = |rows, k, n| Size { rows, k, n, floats: false, grouped: false };
    assert_eq!(Tiling::choose(size(2048, 4096, 4096), 132).outputs(), 256);
    assert_eq!(Tiling::choose(size(8192, 8192, 8192), 132).outputs(), 256);
    assert_eq!(Tiling::choose(size(128, 14336, 4096), 132).rows, 64);
    assert_eq!(Tiling::choose(size(70, 4160, 448), 132).split, 2);
    let grouped = Size { grouped: true, ..size(128, 14336, 4096) };
    let tiling = Tiling::choose(grouped, 132);
    assert_eq!((tiling.blocks, tiling.split), (1, 1));
    let floats = Size { floats: true, ..size(128, 14336, 4096) };
    assert!(Tiling::choose(floats, 132).split <= 2);
}

/// Four outputs of `rows` rows, each with a gap of 8 elements behind its columns.
struct Parts {
    starts: Vec<usize>,
    buffers: Vec<DeviceBuffer>,
    element: Element,
}

impl Parts {
    fn new(gpu: &Gpu, case: Case, more: [usize; 3]) -> Self {
        let starts = [&[0], &more[..], &[case.n]].concat();
        let bytes = |n: usize| vec![POISON; case.rows * (n + 8) * case.element.bytes()];
        let buffers = starts.windows(2).map(|s| gpu.upload(&bytes(s[1] - s[0])).unwrap());
        let buffers = buffers.collect();
        Self { starts, buffers, element: case.element }
    }

    fn stride(&self, i: usize) -> usize {
        self.starts[i + 1] - self.starts[i] + 8
    }

    fn more(&self) -> Vec<MoreOutput> {
        let more = |i: usize| MoreOutput {
            start: self.starts[i],
            to: self.buffers[i].ptr(),
            stride: self.stride(i),
        };
        (1..self.buffers.len()).map(more).collect()
    }

    /// All columns side by side; nothing else was written.
    fn read(&self, gpu: &Gpu, rows: usize) -> Vec<f32> {
        let parts: Vec<Vec<f32>> = self
            .buffers
            .iter()
            .map(|b| from_bytes(self.element, &gpu.download::<u8>(b.ptr(), b.len()).unwrap()))
            .collect();
        let mut all = Vec::new();
        for row in 0..rows {
            for (i, part) in parts.iter().enumerate() {
                let stride = self.stride(i);
                let (values, gap) = part[row * stride..][..stride].split_at(stride - 8);
                assert!(gap.iter().all(|v| v.is_nan()), "written beyond part {i}");
                all.extend_from_slice(values);
            }
        }
        all
    }
}

#[test]
fn each_part_has_an_output_of_its_own() {
    let Some(gpu) = gpu() else { return };
    let gemm = Gemm::new();
    // The last ones begin where no kernel takes them together.
    for (n, more) in [(448, [128, 256, 320]), (200, [64, 128, 192]), (104, [16, 48, 96])] {
        // With 4,160 inputs Hopper's kernel has several blocks a tile.
        for (bits, element, rows, k) in [
            (4, Element::F16, 300, 592),
            (8, Element::BF16, 130, 592),
            (4, Element::F32, 70, 592),
            (4, Element::F16, 70, 4160),
        ] {
            let case = Case { bits, element, full: false, ..Case::new(rows, k, n) };
            let data = Data::new(&gpu, case);
            let bias = Some(data.on_device[3].ptr());
            let codes = QuantizedGemm { bias, ..data.quantized() };
            let floats = WeightOnlyGemm { bias, ..data.weight_only() };
            let by_naive = |work: &dyn Fn()| data.run(&gpu, work);
            let expected = [
                by_naive(&|| gemm.quantized_by(&gpu, &codes, Route::Naive).unwrap()),
                by_naive(&|| gemm.weight_only_by(&gpu, &floats, Route::Naive).unwrap()),
            ];
            for (weight_only, expected) in expected.iter().enumerate() {
                let parts = Parts::new(&gpu, case, more);
                let (out, out_stride, more) =
                    (parts.buffers[0].ptr(), parts.stride(0), parts.more());
                let more = more.as_slice();
                match weight_only {
                    0 => gemm.quantized(&gpu, &QuantizedGemm { out, out_stride, more, ..codes }),
                    _ => {
                        gemm.weight_only(&gpu, &WeightOnlyGemm { out, out_stride, more, ..floats })
                    }
                }
                .unwrap();
                assert_close(case, "parts", &parts.read(&gpu, rows), expected);
                let residual = Some(data.on_device[4].ptr());
                let refused = match weight_only {
                    0 => gemm.quantized(&gpu, &QuantizedGemm { residual, more, ..codes }),
                    _ => gemm.weight_only(&gpu, &WeightOnlyGemm { residual, more, ..floats }),
                };
                assert!(refused.is_err(), "{case:?}: a residual");
            }
        }
    }
}
