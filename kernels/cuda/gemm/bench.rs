//! Times of the products of many rows.

use super::{Gemm, QuantizedGemm, Route, Tiling, WeightOnlyGemm};
use crate::testing::{random_codes, random_f32};
use crate::{Element, Gpu, GpuError, PackedWeights, WeightOrder, cublas, timer};

/// (rows, k, n) of the table.
const SIZES: [(usize, usize, usize); 7] = [
    (2048, 4096, 4096),
    (2048, 4096, 14336),
    (2048, 14336, 4096),
    (8192, 8192, 8192),
    (2048, 4096, 6144),
    (256, 4096, 4096),
    (128, 4096, 14336),
];
const REPEATS: usize = 30;

/// Integer products against cuBLAS in f16. `PLANISH_GEMM_TILINGS` times every way to cut them.
///
/// # Errors
/// If a kernel fails.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let gemm = Gemm::new();
    let all = std::env::var_os("PLANISH_GEMM_TILINGS").is_some();
    let mut lines = vec![
        "| rows × k × n | weights | kernel | µs | TOP/s | cuBLAS f16 µs | TFLOP/s | ratio |".into(),
        "| --- | --- | --- | --- | --- | --- | --- | --- |".into(),
    ];
    for (rows, k, n) in SIZES {
        let rival = cublas_us(gpu, rows, k, n)?;
        for bits in [4, 8] {
            let case = Inputs::new(gpu, (rows, k, n), bits)?;
            let q = case.product(rows, k, n);
            let grouped = QuantizedGemm { block_size: 128, ..q };
            let us = timer::median_us(gpu, REPEATS, || gemm.quantized(gpu, &grouped))?;
            let name_of_groups =
                format!("{}, groups of 128", name(Gemm::route(gpu, &grouped), Route::Naive));
            lines.push(line((rows, k, n), bits, &name_of_groups, us, rival));
            let floats = WeightOnlyGemm {
                rows,
                k,
                x: case.floats.ptr(),
                weights: q.weights,
                w_scale: q.w_scale,
                block_size: 0,
                bias: None,
                residual: None,
                out: q.out,
                out_stride: n,
                element: q.element,
            };
            let us = timer::median_us(gpu, REPEATS, || gemm.weight_only(gpu, &floats))?;
            lines.push(line((rows, k, n), bits, "f16 activations", us, rival));
            let chosen = Gemm::route(gpu, &q);
            for route in routes(gpu, chosen, all) {
                let us = timer::median_us(gpu, REPEATS, || gemm.quantized_by(gpu, &q, route))?;
                lines.push(line((rows, k, n), bits, &name(route, chosen), us, rival));
            }
        }
    }
    Ok(lines)
}

fn line((rows, k, n): (usize, usize, usize), bits: u32, what: &str, us: f64, rival: f64) -> String {
    let rate = |us: f64| 2e-6 * (rows * k * n) as f64 / us;
    format!(
        "| {rows} × {k} × {n} | INT{bits} | {what} | {us:.1} | {:.0} | {rival:.1} | {:.0} | {:.2} |",
        rate(us),
        rate(rival),
        rival / us
    )
}

fn name(route: Route, chosen: Route) -> String {
    let mark = if route == chosen { " (chosen)" } else { "" };
    match route {
        Route::Wgmma(Tiling { rows, blocks, band }) => {
            format!("wgmma {}×{rows}, band {band}{mark}", 128 * blocks)
        }
        other => format!("{other:?}{mark}"),
    }
}

fn routes(gpu: &Gpu, chosen: Route, all: bool) -> Vec<Route> {
    let mut routes = vec![chosen];
    if all {
        if gpu.properties().has_wgmma() {
            for (rows, blocks) in [(128, 2), (128, 1), (64, 1), (64, 2)] {
                for band in [4, 8, 16] {
                    routes.push(Route::Wgmma(Tiling { rows, blocks, band }));
                }
            }
        }
        routes.push(Route::Mma);
    }
    routes
}

/// Random operands on the device.
struct Inputs {
    buffers: [crate::DeviceBuffer; 4],
    floats: crate::DeviceBuffer,
    weights: PackedWeights,
}

impl Inputs {
    fn new(gpu: &Gpu, (rows, k, n): (usize, usize, usize), bits: u32) -> Result<Self, GpuError> {
        let raw = random_codes(1, k * n * bits as usize / 8, 8);
        let raw: &[u8] = bytemuck::cast_slice(&raw);
        let halves = |seed, len| -> Vec<u16> {
            random_f32(seed, len).iter().map(|v| half::f16::from_f32(*v).to_bits()).collect()
        };
        Ok(Self {
            buffers: [
                gpu.upload(&random_codes(2, rows * k, bits))?,
                gpu.upload(&vec![0.01f32; rows])?,
                gpu.upload(&vec![0.01f32; k / 128 * n])?,
                gpu.alloc(rows * n * 2)?,
            ],
            floats: gpu.upload(&halves(3, rows * k))?,
            weights: PackedWeights::pack(gpu, raw, bits, (k, n), WeightOrder::Nk)?,
        })
    }

    fn product(&self, rows: usize, k: usize, n: usize) -> QuantizedGemm<'_> {
        let [codes, a_scale, w_scale, out] = self.buffers.each_ref().map(|b| b.ptr());
        QuantizedGemm {
            rows,
            k,
            codes,
            code_bits: self.weights.bits,
            a_scale,
            weights: &self.weights,
            w_scale,
            block_size: 0,
            bias: None,
            residual: None,
            out,
            out_stride: n,
            element: Element::F16,
        }
    }
}

fn cublas_us(gpu: &Gpu, rows: usize, k: usize, n: usize) -> Result<f64, GpuError> {
    let random = |seed, len: usize| -> Result<_, GpuError> {
        let data: Vec<u16> =
            random_f32(seed, len).iter().map(|v| half::f16::from_f32(*v).to_bits()).collect();
        gpu.upload(&data)
    };
    let (x, w) = (random(1, rows * k)?, random(2, k * n)?);
    let out = gpu.alloc(rows * n * 2)?;
    let product = cublas::Gemm {
        rows,
        k,
        n,
        x: x.ptr(),
        w: w.ptr(),
        trans_w: true,
        out: out.ptr(),
        element: Element::F16,
        accumulate: false,
    };
    timer::median_us(gpu, REPEATS, || cublas::gemm(gpu, product))
}
