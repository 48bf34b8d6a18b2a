//! Picking and launching a kernel.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::problem::{Part, Problem, QuantizedGemm, WeightOnlyGemm};
use super::sources::{MMA, MMA_S4, NAIVE, WEIGHT_ONLY, WEIGHT_ONLY_F32, WGMMA};
use super::wgmma::{Form, Groups, Size, Tiling, has_bulk_output};
use crate::{Args, DevicePtr, Element, Function, Gpu, GpuError, Launch, Properties};

/// Rows and outputs of a block of the `mma.sync` kernels.
const MMA_TILE: usize = 128;
/// Rows and outputs of a block of the f32 kernel.
const F32_TILE: usize = 64;
const MMA_THREADS: u32 = 256;
const WGMMA_THREADS: u32 = 384;

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// One thread a result.
    Naive,
    /// CUDA cores, in f32; for float activations.
    Cores,
    /// `mma.sync` on 8-bit integers or 16-bit floats.
    Mma,
    /// `mma.sync` on 4-bit integers.
    MmaS4,
    /// Hopper's `wgmma`.
    Wgmma(Tiling),
}

/// What a function is compiled for besides the element type and the weights' width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Naive { floats: bool },
    Mma { s4: bool, grouped: bool, aligned: bool },
    Wgmma { form: Form, stages: usize },
    WeightOnly { grouped: bool },
    WeightOnlyF32,
}

/// Launches quantised products of many rows; holds the kernels that it has used.
#[derive(Default)]
pub struct Gemm {
    functions: Mutex<HashMap<(Key, Element, u32), Function>>,
}

impl std::fmt::Debug for Gemm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gemm")
    }
}

impl Gemm {
    /// With no kernel loaded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The kernel that [`Gemm::quantized`] picks.
    pub fn route(gpu: &Gpu, q: &QuantizedGemm<'_>) -> Route {
        if gpu.properties().has_wgmma() && fits_wgmma(q) {
            return wgmma_route(gpu, &q.as_weight_only(), false);
        }
        // Hopper has no 4-bit tensor cores, nor have the cards after Ada.
        match gpu.properties().major == 8 && fits_s4(q) {
            true => Route::MmaS4,
            false => Route::Mma,
        }
    }

    /// The kernel that [`Gemm::weight_only`] picks.
    pub fn weight_only_route(gpu: &Gpu, q: &WeightOnlyGemm<'_>) -> Route {
        match fits_tensor_cores(q) {
            false => Route::Cores,
            true if gpu.properties().has_wgmma() && Groups::of(q.block_size, true).is_some() => {
                wgmma_route(gpu, q, true)
            }
            true => Route::Mma,
        }
    }

    /// A product of codes.
    ///
    /// # Errors
    /// Sizes that do not fit each other; what compiling or launching gives.
    pub fn quantized(&self, gpu: &Gpu, q: &QuantizedGemm<'_>) -> Result<(), GpuError> {
        let route = Self::route(gpu, q);
        let plain = q.as_weight_only();
        if shares_launch(&plain, route) {
            return self.quantized_by(gpu, q, route);
        }
        plain.problem()?;
        for Part { start, n, w_scale, bias, out, out_stride } in plain.parts() {
            let weights = &q.weights.part(start, n)?;
            let part = QuantizedGemm { weights, w_scale, bias, out, out_stride, more: &[], ..*q };
            self.quantized_by(gpu, &part, Self::route(gpu, &part))?;
        }
        Ok(())
    }

    /// A product of codes by one kernel.
    ///
    /// # Errors
    /// As [`Gemm::quantized`]; a kernel that can't make the product.
    pub fn quantized_by(
        &self,
        gpu: &Gpu,
        q: &QuantizedGemm<'_>,
        route: Route,
    ) -> Result<(), GpuError> {
        let problem = q.problem()?;
        if q.rows == 0 {
            return Ok(());
        }
        let plain = q.as_weight_only();
        match route {
            _ if !shares_launch(&plain, route) => Err(no_route(&plain, route)),
            Route::Naive => self.naive(gpu, &plain, &problem, false),
            Route::Mma => self.mma(gpu, q, &problem, false),
            Route::MmaS4 if fits_s4(q) => self.mma(gpu, q, &problem, true),
            Route::Wgmma(tiling) if fits_wgmma(q) => {
                self.wgmma(gpu, &plain, &problem, tiling, false)
            }
            _ => Err(no_route(&plain, route)),
        }
    }

    /// A product of floats and quantised weights.
    ///
    /// # Errors
    /// As [`Gemm::quantized`].
    pub fn weight_only(&self, gpu: &Gpu, q: &WeightOnlyGemm<'_>) -> Result<(), GpuError> {
        let route = Self::weight_only_route(gpu, q);
        if shares_launch(q, route) {
            return self.weight_only_by(gpu, q, route);
        }
        q.problem()?;
        for Part { start, n, w_scale, bias, out, out_stride } in q.parts() {
            let weights = &q.weights.part(start, n)?;
            let part = WeightOnlyGemm { weights, w_scale, bias, out, out_stride, more: &[], ..*q };
            self.weight_only_by(gpu, &part, Self::weight_only_route(gpu, &part))?;
        }
        Ok(())
    }

    /// A product of floats and quantised weights by one kernel.
    ///
    /// # Errors
    /// As [`Gemm::quantized_by`].
    pub fn weight_only_by(
        &self,
        gpu: &Gpu,
        q: &WeightOnlyGemm<'_>,
        route: Route,
    ) -> Result<(), GpuError> {
        let problem = q.problem()?;
        if q.rows == 0 {
            return Ok(());
        }
        match route {
            _ if !shares_launch(q, route) => Err(no_route(q, route)),
            Route::Naive => self.naive(gpu, q, &problem, true),
            Route::Cores => {
                let function = self.function(gpu, Key::WeightOnlyF32, q)?;
                let launch = tiles(q, F32_TILE, 256)?;
                gpu.launch(&function, launch, &arguments(q, &problem))
            }
            Route::Mma if fits_tensor_cores(q) => {
                let key = Key::WeightOnly { grouped: q.block_size > 0 };
                let function = self.function(gpu, key, q)?;
                // Three stages of 64 inputs.
                let shared = 3 * 64 * MMA_TILE * (q.weights.bits as usize + 16) / 8;
                let launch = tiles(q, MMA_TILE, MMA_THREADS)?.with_shared(shared);
                gpu.launch(&function, launch, &arguments(q, &problem))
            }
            Route::Wgmma(tiling)
                if fits_tensor_cores(q) && Groups::of(q.block_size, true).is_some() =>
            {
                self.wgmma(gpu, q, &problem, tiling, true)
            }
            _ => Err(no_route(q, route)),
        }
    }

    fn naive(
        &self,
        gpu: &Gpu,
        q: &WeightOnlyGemm<'_>,
        problem: &Problem,
        floats: bool,
    ) -> Result<(), GpuError> {
        let function = self.function(gpu, Key::Naive { floats }, q)?;
        let mut launch = Launch::linear(q.weights.n.div_ceil(128), 128);
        launch.grid[1] = q.rows.min(65_535) as u32;
        gpu.launch(&function, launch, &arguments(q, problem))
    }

    fn mma(
        &self,
        gpu: &Gpu,
        q: &QuantizedGemm<'_>,
        problem: &Problem,
        s4: bool,
    ) -> Result<(), GpuError> {
        let aligned = q.k.is_multiple_of(16) && is_aligned(q.codes);
        let key = Key::Mma { s4, grouped: q.block_size > 0, aligned };
        let plain = q.as_weight_only();
        let function = self.function(gpu, key, &plain)?;
        // Stages, or the tile of results that is transposed through their place.
        let shared = (48 << 10).max(MMA_TILE * MMA_TILE * q.element.bytes());
        let launch = tiles(&plain, MMA_TILE, MMA_THREADS)?.with_shared(shared);
        gpu.launch(&function, launch, &arguments(&plain, problem))
    }

    fn wgmma(
        &self,
        gpu: &Gpu,
        q: &WeightOnlyGemm<'_>,
        problem: &Problem,
        tiling: Tiling,
        floats: bool,
    ) -> Result<(), GpuError> {
        let groups = Groups::of(q.block_size, floats).unwrap_or(Groups::None);
        let (bits, parts, bulk) = (q.weights.bits, 1 + q.more.len(), has_bulk_output(q));
        let form = Form { tiling, bits, floats, groups, bulk, parts };
        let properties = gpu.properties();
        let stages = form.stages(properties.shared_memory_per_block as usize);
        if !form.is_possible(stages, q.k) {
            return Err(no_route(q, Route::Wgmma(tiling)));
        }
        let function = self.function(gpu, Key::Wgmma { form, stages }, q)?;
        let launch = Launch::linear(tiling.grid(q.rows, q.weights.n, properties), WGMMA_THREADS)
            .with_shared(form.shared(stages))
            .overlapping();
        let maps = form.maps(gpu, q)?;
        let args = maps.iter().fold(Args::new(), |args, map| args.bytes(map.bytes()));
        let args = args.bytes(bytemuck::bytes_of(problem));
        match parts {
            1 => gpu.launch(&function, launch, &args),
            _ => gpu.launch(&function, launch, &args.bytes(&form.more(gpu, q)?)),
        }
    }

    fn function(&self, gpu: &Gpu, key: Key, q: &WeightOnlyGemm<'_>) -> Result<Function, GpuError> {
        let (element, bits) = (q.element, q.weights.bits);
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&(key, element, bits)) {
            return Ok(function.clone());
        }
        let function = compile(gpu, key, element, bits)?;
        functions.insert((key, element, bits), function.clone());
        Ok(function)
    }
}

fn compile(gpu: &Gpu, key: Key, element: Element, bits: u32) -> Result<Function, GpuError> {
    let bits = bits.to_string();
    let common = [element.define(), ("WEIGHT_BITS", bits.as_str())];
    let flag = |set: bool| if set { "1" } else { "0" };
    match key {
        Key::Naive { floats: false } => gpu.function(&NAIVE, "naive_gemm", &common),
        Key::Naive { floats: true } => gpu.function(&NAIVE, "naive_weight_only", &common),
        Key::Mma { s4, grouped, aligned } => {
            let source = if s4 { &MMA_S4 } else { &MMA };
            let own = [("S4", flag(s4)), ("GROUPED", flag(grouped)), ("ALIGNED", flag(aligned))];
            gpu.function(source, "mma_gemm", &[common.as_slice(), &own].concat())
        }
        Key::Wgmma { form: Form { tiling, floats, groups, bulk, parts, .. }, stages } => {
            let Tiling { rows, blocks, band, split } = tiling;
            let groups = match groups {
                Groups::None => "0",
                Groups::Half => "1",
                Groups::Stages => "2",
            };
            let [rows, blocks, band, split, stages, parts] =
                [rows, blocks, band, split, stages, parts].map(|value| value.to_string());
            let own = [
                ("TILE_M", rows.as_str()),
                ("BLOCKS", blocks.as_str()),
                ("BAND", band.as_str()),
                ("SPLIT", split.as_str()),
                ("STAGES", stages.as_str()),
                ("FLOATS", flag(floats)),
                ("GROUPED", groups),
                ("PARTS", parts.as_str()),
                ("BULK", flag(bulk)),
            ];
            gpu.function(&WGMMA, "wgmma_gemm", &[common.as_slice(), &own].concat())
        }
        Key::WeightOnly { grouped } => {
            let own = [("GROUPED", flag(grouped))];
            gpu.function(&WEIGHT_ONLY, "weight_only", &[common.as_slice(), &own].concat())
        }
        Key::WeightOnlyF32 => gpu.function(&WEIGHT_ONLY_F32, "weight_only_f32", &common),
    }
}

/// Whether products of codes with `n` outputs are faster here than by the kernels for few rows, which
/// take up to 64; measured on an H200, and from 14,336 outputs on an H100.
pub fn suits_rows(properties: &Properties, rows: usize, n: usize) -> bool {
    match rows {
        0..=16 => false,
        17..=32 => properties.has_wgmma() && n >= 14_336,
        33..=64 => properties.has_wgmma() && n >= 4096,
        _ => true,
    }
}

/// Whether a kernel takes all outputs of a product in one launch.
fn shares_launch(q: &WeightOnlyGemm<'_>, route: Route) -> bool {
    let can = matches!(route, Route::Wgmma(_)) && q.block_size == 0 && has_bulk_output(q);
    q.more.is_empty() || can
}

fn is_aligned(pointer: DevicePtr) -> bool {
    pointer.0.is_multiple_of(16)
}

/// The copy engine wants rows of whole 16 bytes.
fn fits_wgmma(q: &QuantizedGemm<'_>) -> bool {
    Groups::of(q.block_size, false).is_some() && q.k.is_multiple_of(16) && is_aligned(q.codes)
}

/// Products of 64 inputs at once can't be cut into groups of fewer.
fn fits_s4(q: &QuantizedGemm<'_>) -> bool {
    q.code_bits == 4 && q.weights.bits == 4 && q.block_size.is_multiple_of(64)
}

fn fits_tensor_cores(q: &WeightOnlyGemm<'_>) -> bool {
    q.element != Element::F32 && q.k.is_multiple_of(8) && is_aligned(q.x)
}

fn wgmma_route(gpu: &Gpu, q: &WeightOnlyGemm<'_>, floats: bool) -> Route {
    let (rows, k, n, grouped) = (q.rows, q.k, q.weights.n, q.block_size > 0);
    let size = Size { rows, k, n, floats, grouped };
    Route::Wgmma(Tiling::choose(size, gpu.properties().multiprocessors as usize))
}

fn no_route(q: &WeightOnlyGemm<'_>, route: Route) -> GpuError {
    let (k, block) = (q.k, q.block_size);
    GpuError::unsupported(format!("a product of {k} inputs in blocks of {block} by {route:?}"))
}

fn arguments(q: &WeightOnlyGemm<'_>, problem: &Problem) -> Args {
    Args::new().ptr(q.weights.ptr()).ptr(q.x).bytes(bytemuck::bytes_of(problem))
}

fn tiles(q: &WeightOnlyGemm<'_>, tile: usize, threads: u32) -> Result<Launch, GpuError> {
    let mut launch = Launch::linear(q.weights.n.div_ceil(tile), threads).overlapping();
    launch.grid[1] = q.rows.div_ceil(tile) as u32;
    match launch.grid[1] {
        0..=65_535 => Ok(launch),
        _ => Err(GpuError::unsupported(format!("a product of {} rows", q.rows))),
    }
}
