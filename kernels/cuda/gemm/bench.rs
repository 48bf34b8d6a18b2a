//! Times of the products of many rows.

use super::{Gemm, QuantizedGemm, Route, Tiling, WeightOnlyGemm};
use crate::testing::{random_codes, random_f32};
use crate::{Element, Gpu, GpuError, MoreOutput, PackedWeights, WeightOrder, cublas, timer};

/// (rows, k, n) of the table.
const SIZES: [(usize, usize, usize); 10] = [
    (2048, 4096, 4096),
    (2048, 4096, 14336),
    (2048, 14336, 4096),
    (8192, 8192, 8192),
    (2048, 4096, 6144),
    (512, 4096, 4096),
    (256, 4096, 4096),
    (128, 4096, 4096),
    (128, 4096, 14336),
    (128, 14336, 4096),
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
    for size in SIZES {
        for bits in [4, 8] {
            // Beside each other: long products heat the card, and the next ones run slower.
            let rival = cublas_us(gpu, size)?;
            let inputs = Inputs::new(gpu, size, bits)?;
            let q = inputs.codes(size);
            let chosen = Gemm::route(gpu, &q);
            for route in routes(gpu, chosen, all) {
                if let Ok(us) = timer::median_us(gpu, REPEATS, || gemm.quantized_by(gpu, &q, route))
                {
                    lines.push(line(size, bits, &name(route, chosen), us, rival));
                }
            }
            let grouped = QuantizedGemm { block_size: 128, ..q };
            let us = timer::median_us(gpu, REPEATS, || gemm.quantized(gpu, &grouped))?;
            lines.push(line(size, bits, "groups of 128", us, rival));
            let added = QuantizedGemm { residual: Some(q.out), ..q };
            let us = timer::median_us(gpu, REPEATS, || gemm.quantized(gpu, &added))?;
            lines.push(line(size, bits, "with residual", us, rival));
            if size == (2048, 4096, 6144) {
                for (what, us) in three_outputs(gpu, &gemm, &q)? {
                    lines.push(line(size, bits, what, us, rival));
                }
            }
            let floats = inputs.floats(size);
            let us = timer::median_us(gpu, REPEATS, || gemm.weight_only(gpu, &floats))?;
            lines.push(line(size, bits, "f16 activations", us, rival));
        }
    }
    Ok(lines)
}

/// Queries, keys and values, twice as many queries as both others, by one launch and by three.
fn three_outputs(
    gpu: &Gpu,
    gemm: &Gemm,
    q: &QuantizedGemm<'_>,
) -> Result<[(&'static str, f64); 2], GpuError> {
    let sixth = q.weights.n / 6;
    let part = |start: usize, stride: usize| MoreOutput {
        start: start * sixth,
        to: q.out.offset(2 * q.rows * start * sixth),
        stride: stride * sixth,
    };
    let parts = [part(0, 4), part(4, 1), part(5, 1)];
    let together = QuantizedGemm { out_stride: parts[0].stride, more: &parts[1..], ..*q };
    let by_one = timer::median_us(gpu, REPEATS, || gemm.quantized(gpu, &together))?;
    let by_three = timer::median_us(gpu, REPEATS, || {
        parts.iter().try_for_each(|&MoreOutput { start, to, stride }| {
            let weights = &q.weights.part(start, stride)?;
            let w_scale = q.w_scale.offset(4 * start);
            gemm.quantized(
                gpu,
                &QuantizedGemm { weights, w_scale, out: to, out_stride: stride, ..*q },
            )
        })
    })?;
    Ok([("three outputs", by_one), ("three products", by_three)])
}

type Size = (usize, usize, usize);

fn line((rows, k, n): Size, bits: u32, what: &str, us: f64, rival: f64) -> String {
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
        Route::Wgmma(Tiling { rows, blocks, band, split }) => {
            format!("wgmma {}×{rows}, band {band}, split {split}{mark}", 128 * blocks)
        }
        other => format!("{other:?}{mark}"),
    }
}

fn routes(gpu: &Gpu, chosen: Route, all: bool) -> Vec<Route> {
    let mut routes = vec![chosen];
    if all {
        if gpu.properties().has_wgmma() {
            for (rows, blocks, band, split) in [
                (128, 2, 8, 1),
                (128, 2, 4, 1),
                (128, 1, 8, 1),
                (128, 1, 8, 2),
                (128, 1, 8, 4),
                (64, 1, 8, 1),
                (64, 1, 8, 2),
                (64, 1, 8, 4),
            ] {
                routes.push(Route::Wgmma(Tiling { rows, blocks, band, split }));
            }
        }
        routes.push(Route::Mma);
    }
    routes
}

/// Random operands on the device.
struct Inputs {
    buffers: [crate::DeviceBuffer; 4],
    halves: crate::DeviceBuffer,
    weights: PackedWeights,
}

impl Inputs {
    fn new(gpu: &Gpu, (rows, k, n): Size, bits: u32) -> Result<Self, GpuError> {
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
            halves: gpu.upload(&halves(3, rows * k))?,
            weights: PackedWeights::pack(gpu, raw, bits, (k, n), WeightOrder::Nk)?,
        })
    }

    fn codes(&self, (rows, k, n): Size) -> QuantizedGemm<'_> {
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
            more: &[],
            element: Element::F16,
        }
    }

    fn floats(&self, (rows, k, n): Size) -> WeightOnlyGemm<'_> {
        let q = self.codes((rows, k, n));
        WeightOnlyGemm {
            rows,
            k,
            x: self.halves.ptr(),
            weights: q.weights,
            w_scale: q.w_scale,
            block_size: 0,
            bias: None,
            residual: None,
            out: q.out,
            out_stride: n,
            more: &[],
            element: q.element,
        }
    }
}

fn cublas_us(gpu: &Gpu, (rows, k, n): Size) -> Result<f64, GpuError> {
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
        trans_x: false,
        alpha: 1.0,
        accumulate: false,
        tf32: false,
    };
    timer::median_us(gpu, REPEATS, || cublas::gemm(gpu, product))
}
