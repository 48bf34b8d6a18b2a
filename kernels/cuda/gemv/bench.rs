//! What products of few rows take, weights not in cache.

use super::plan::ways;
use super::sources::READ;
use super::{DenseGemv, Gemv, QuantizedGemv, WeightOnlyGemv};
use crate::gemm::{Gemm, QuantizedGemm, Route, Tiling, suits_rows};
use crate::testing::{random_codes, random_f32};
use crate::{Args, DeviceBuffer, Element, Gpu, GpuError, Launch, PackedWeights, cublas, timer};

/// Bytes that repeated products go through before they come back to the same weights.
const ROTATED: usize = 300 << 20;
/// Shapes of Llama-3-8B: output; q, k and v; one of gate and up; both; down.
const SHAPES: [(usize, usize); 5] =
    [(4096, 4096), (4096, 6144), (4096, 14336), (4096, 28672), (14336, 4096)];

/// Rows `what, µs, GB/s, part of the read bandwidth, times faster than cuBLAS f16`. With
/// `PLANISH_GEMV_WAYS` in the environment: every kernel for one row, and for 16 to 64, instead.
///
/// # Errors
/// If the device fails.
pub fn bench(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    if std::env::var_os("PLANISH_GEMV_WAYS").is_some() {
        return every_way(gpu);
    }
    let gemv = Gemv::new();
    let bandwidth = read_bandwidth(gpu)?;
    let mut lines = vec![format!("reading alone: {bandwidth:.0} GB/s")];
    let mut add = |what: String, us: f64, bytes: usize, rival: Option<f64>| {
        let rate = bytes as f64 / us / 1e3;
        let part = 100.0 * rate / bandwidth;
        let rival = rival.map_or(String::new(), |rival| {
            format!(", cuBLAS f16 {rival:7.2} µs: {:.2} times", rival / us)
        });
        lines.push(format!("{what:34} {us:7.2} µs {rate:5.0} GB/s {part:3.0}%{rival}"));
    };
    for rows in [1, 4, 8, 16, 32, 64] {
        for (k, n) in SHAPES {
            let rival = cublas_us(gpu, rows, k, n)?;
            let us = quantized_us(gpu, &gemv, rows, k, n)?;
            add(format!("W4A4 {rows} × {k} × {n}"), us, k * n / 2, Some(rival));
        }
    }
    for (bits, rows, (k, n)) in [
        (8, 1, (4096, 128_256)),
        (4, 1, (4096, 14336)),
        (4, 16, (4096, 14336)),
        (8, 1, (4096, 4096)),
    ] {
        let rival = cublas_us(gpu, rows, k, n)?;
        let us = weight_only_us(gpu, &gemv, bits, rows, k, n)?;
        add(format!("W{bits}A16 {rows} × {k} × {n}"), us, k * n * bits as usize / 8, Some(rival));
    }
    for element in [Element::F16, Element::F32] {
        for rows in [1, 8] {
            for (k, n) in [(4096, 4096), (4096, 14336), (14336, 4096)] {
                let rival = (element == Element::F16).then(|| cublas_us(gpu, rows, k, n));
                let rival = rival.transpose()?;
                for trans_b in [false, true] {
                    let us = dense_us(gpu, &gemv, element, rows, (k, n), trans_b)?;
                    let order = if trans_b { "[n, k]" } else { "[k, n]" };
                    let what = format!("{} {order} {rows} × {k} × {n}", element.name());
                    add(what, us, k * n * element.bytes(), rival);
                }
            }
        }
    }
    Ok(lines)
}

/// Every kernel that takes one row of codes, or 16 to 64, those of `gemm` among them: what plans are made from.
///
/// # Errors
/// If the device fails.
fn every_way(gpu: &Gpu) -> Result<Vec<String>, GpuError> {
    let (gemv, gemm) = (Gemv::new(), Gemm::new());
    let mut lines = Vec::new();
    for (k, n) in SHAPES {
        let weights = packed(copies(gpu, k * n / 2)?, 4, k, n)?;
        for rows in [1, 16, 32, 64] {
            let rival = cublas_us(gpu, rows, k, n)?;
            let operands = Operands::new(gpu, rows, k, n)?;
            let mut add = |what: String, us: Result<f64, GpuError>| {
                lines.push(match us {
                    Ok(us) => {
                        format!("{rows} × {k} × {n}: {us:6.2} µs, {:.2} times, {what}", rival / us)
                    }
                    Err(error) => format!("{rows} × {k} × {n}: {what}: {error}"),
                });
            };
            let first = operands.product(&weights[0]);
            for way in ways(gpu.properties(), &(&first).into(), rows) {
                let us = graph_us(gpu, weights.len(), |i| {
                    gemv.quantized_by(gpu, &operands.product(&weights[i]), way)
                });
                add(format!("{way:?}"), us);
            }
            if rows == 1 {
                continue;
            }
            for (tile, blocks, split) in
                [(64, 1, 1), (64, 1, 2), (64, 1, 4), (64, 2, 1), (64, 2, 2), (64, 2, 4)]
            {
                let tiling = Tiling { rows: tile, blocks, band: 8, split };
                let us = graph_us(gpu, weights.len(), |i| {
                    let product = operands.many(&weights[i]);
                    gemm.quantized_by(gpu, &product, Route::Wgmma(tiling))
                });
                add(format!("{tiling:?}"), us);
            }
        }
    }
    Ok(lines)
}

/// Activations, scales and the output of a product on the device.
struct Operands {
    rows: usize,
    k: usize,
    codes: DeviceBuffer,
    a_scale: DeviceBuffer,
    w_scale: DeviceBuffer,
    out: DeviceBuffer,
}

impl Operands {
    fn new(gpu: &Gpu, rows: usize, k: usize, n: usize) -> Result<Self, GpuError> {
        Ok(Self {
            rows,
            k,
            codes: gpu.upload(&random_codes(3, rows * k, 4))?,
            a_scale: gpu.upload(&random_f32(4, rows))?,
            w_scale: gpu.upload(&random_f32(5, n))?,
            out: gpu.alloc(rows * n * 2)?,
        })
    }

    fn product<'a>(&self, weights: &'a PackedWeights) -> QuantizedGemv<'a> {
        QuantizedGemv {
            rows: self.rows,
            k: self.k,
            codes: self.codes.ptr(),
            a_scale: self.a_scale.ptr(),
            weights,
            w_scale: self.w_scale.ptr(),
            block_size: 0,
            bias: None,
            residual: None,
            out: self.out.ptr(),
            out_stride: weights.n,
            more: &[],
            element: Element::F16,
        }
    }

    fn many<'a>(&self, weights: &'a PackedWeights) -> QuantizedGemm<'a> {
        QuantizedGemm {
            rows: self.rows,
            k: self.k,
            codes: self.codes.ptr(),
            code_bits: 4,
            a_scale: self.a_scale.ptr(),
            weights,
            w_scale: self.w_scale.ptr(),
            block_size: 0,
            bias: None,
            residual: None,
            out: self.out.ptr(),
            out_stride: weights.n,
            more: &[],
            element: Element::F16,
        }
    }
}

/// Microseconds of one of many launches in a captured graph, the i-th with the i-th copy.
fn graph_us(
    gpu: &Gpu,
    n_copies: usize,
    launch: impl Fn(usize) -> Result<(), GpuError>,
) -> Result<f64, GpuError> {
    launch(0)?;
    gpu.synchronize()?;
    let n = n_copies.max(24);
    let mut graph = gpu.capture(|| (0..n).try_for_each(|i| launch(i % n_copies)))?;
    Ok(timer::median_us(gpu, 11, || gpu.replay(&mut graph))? / n as f64)
}

/// Copies of random bytes, each `bytes` long, `ROTATED` bytes in all, two at least.
fn copies(gpu: &Gpu, bytes: usize) -> Result<Vec<DeviceBuffer>, GpuError> {
    let block = random_codes(1, 1 << 20, 8);
    let block = gpu.upload(&block)?;
    (0..ROTATED.div_ceil(bytes).max(2))
        .map(|_| {
            let copy = gpu.alloc(bytes)?;
            for at in (0..bytes).step_by(1 << 20) {
                gpu.copy(block.ptr(), copy.ptr().offset(at), (bytes - at).min(1 << 20))?;
            }
            Ok(copy)
        })
        .collect()
}

/// Copies of f16 or f32 numbers from −1 to 1.
fn float_copies(gpu: &Gpu, n: usize, element: Element) -> Result<Vec<DeviceBuffer>, GpuError> {
    let block = floats(gpu, 1 << 20, element)?;
    let (bytes, step) = (n * element.bytes(), element.bytes() << 20);
    (0..ROTATED.div_ceil(bytes).max(2))
        .map(|_| {
            let copy = gpu.alloc(bytes)?;
            for at in (0..bytes).step_by(step) {
                gpu.copy(block.ptr(), copy.ptr().offset(at), (bytes - at).min(step))?;
            }
            Ok(copy)
        })
        .collect()
}

fn floats(gpu: &Gpu, n: usize, element: Element) -> Result<DeviceBuffer, GpuError> {
    let values = random_f32(2, n);
    match element {
        Element::F32 => gpu.upload(&values),
        Element::F16 => gpu.upload(
            &values.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect::<Vec<u16>>(),
        ),
        Element::BF16 => gpu.upload(
            &values.iter().map(|v| half::bf16::from_f32(*v).to_bits()).collect::<Vec<u16>>(),
        ),
    }
}

fn packed(
    buffers: Vec<DeviceBuffer>,
    bits: u32,
    k: usize,
    n: usize,
) -> Result<Vec<PackedWeights>, GpuError> {
    buffers.into_iter().map(|data| PackedWeights::of_packed(data, bits, (k, n))).collect()
}

/// By the kernels of `gemm` where those suit better, as the engine does it.
fn quantized_us(gpu: &Gpu, gemv: &Gemv, rows: usize, k: usize, n: usize) -> Result<f64, GpuError> {
    let weights = packed(copies(gpu, k * n / 2)?, 4, k, n)?;
    let operands = Operands::new(gpu, rows, k, n)?;
    if suits_rows(gpu.properties(), rows, n) {
        let gemm = Gemm::new();
        return graph_us(gpu, weights.len(), |i| gemm.quantized(gpu, &operands.many(&weights[i])));
    }
    graph_us(gpu, weights.len(), |i| gemv.quantized(gpu, &operands.product(&weights[i])))
}

fn weight_only_us(
    gpu: &Gpu,
    gemv: &Gemv,
    bits: u32,
    rows: usize,
    k: usize,
    n: usize,
) -> Result<f64, GpuError> {
    let weights = packed(copies(gpu, k * n * bits as usize / 8)?, bits, k, n)?;
    let x = floats(gpu, rows * k, Element::F16)?;
    let w_scale = gpu.upload(&random_f32(5, n))?;
    let out = gpu.alloc(rows * n * 2)?;
    graph_us(gpu, weights.len(), |i| {
        let product = WeightOnlyGemv {
            rows,
            k,
            x: x.ptr(),
            weights: &weights[i],
            w_scale: w_scale.ptr(),
            block_size: 0,
            bias: None,
            residual: None,
            out: out.ptr(),
            out_stride: n,
            more: &[],
            element: Element::F16,
        };
        gemv.weight_only(gpu, &product)
    })
}

fn dense_us(
    gpu: &Gpu,
    gemv: &Gemv,
    element: Element,
    rows: usize,
    (k, n): (usize, usize),
    trans_b: bool,
) -> Result<f64, GpuError> {
    let weights = float_copies(gpu, k * n, element)?;
    let x = floats(gpu, rows * k, element)?;
    let out = gpu.alloc(rows * n * element.bytes())?;
    graph_us(gpu, weights.len(), |i| {
        let product = DenseGemv {
            rows,
            k,
            n,
            x: x.ptr(),
            w: weights[i].ptr(),
            trans_b,
            bias: None,
            residual: None,
            out: out.ptr(),
            out_stride: n,
            element,
        };
        gemv.dense(gpu, &product)
    })
}

/// cuBLAS with f16, by whichever order of weights is faster.
fn cublas_us(gpu: &Gpu, rows: usize, k: usize, n: usize) -> Result<f64, GpuError> {
    let weights = float_copies(gpu, k * n, Element::F16)?;
    let x = floats(gpu, rows * k, Element::F16)?;
    let out = gpu.alloc(rows * n * 2)?;
    let mut best = f64::INFINITY;
    for trans_w in [false, true] {
        let us = graph_us(gpu, weights.len(), |i| {
            let (x, w, out) = (x.ptr(), weights[i].ptr(), out.ptr());
            let element = Element::F16;
            let gemm = cublas::Gemm {
                rows,
                k,
                n,
                x,
                w,
                trans_w,
                out,
                element,
                trans_x: false,
                alpha: 1.0,
                accumulate: false,
                tf32: false,
            };
            cublas::gemm(gpu, gemm)
        })?;
        best = best.min(us);
    }
    Ok(best)
}

/// GB/s of reading 1 GiB.
fn read_bandwidth(gpu: &Gpu) -> Result<f64, GpuError> {
    let bytes = 1 << 30;
    let data = gpu.alloc(bytes)?;
    gpu.zero(data.ptr(), bytes)?;
    let out = gpu.alloc(4)?;
    let read = gpu.function(&READ, "read_all", &[Element::F16.define()])?;
    let blocks = gpu.properties().multiprocessors as usize * 4;
    let us = timer::median_us(gpu, 11, || {
        let args = Args::new().ptr(data.ptr()).u64(bytes as u64 / 16).ptr(out.ptr());
        gpu.launch(&read, Launch::linear(blocks, 512), &args)
    })?;
    Ok(bytes as f64 / us / 1e3)
}
