//! Picking and launching a kernel.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::problem::{Problem, QuantizedGemm, WeightOnlyGemm};
use super::sources::{MMA, MMA_S4, NAIVE, WEIGHT_ONLY, WEIGHT_ONLY_F32, WGMMA};
use super::wgmma::Tiling;
use crate::{Args, DevicePtr, Element, Function, Gpu, GpuError, Launch};

/// Rows and outputs of a block of the `mma.sync` kernels.
const MMA_TILE: usize = 128;
/// Rows and outputs of a block of the f32 kernel.
const F32_TILE: usize = 64;
const MMA_THREADS: u32 = 256;
const WGMMA_THREADS: u32 = 384;

/// A kernel of integer products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// One thread a result.
    Naive,
    /// `mma.sync` on 8-bit integers.
    Mma,
    /// `mma.sync` on 4-bit integers.
    MmaS4,
    /// Hopper's `wgmma`.
    Wgmma(Tiling),
}

/// What a function is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Naive { weight_only: bool },
    Mma { s4: bool, grouped: bool, aligned: bool },
    Wgmma { tiling: Tiling, stages: usize, grouped: bool },
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
        let properties = gpu.properties();
        if properties.has_wgmma() && fits_wgmma(q) {
            let (n, grouped) = (q.weights.n, q.block_size > 0);
            let multiprocessors = properties.multiprocessors as usize;
            return Route::Wgmma(Tiling::choose(q.rows, n, grouped, multiprocessors));
        }
        // Hopper has no 4-bit tensor cores, nor have the cards after Ada.
        match properties.major == 8 && fits_s4(q) {
            true => Route::MmaS4,
            false => Route::Mma,
        }
    }

    /// A product of codes.
    ///
    /// # Errors
    /// Sizes that do not fit each other; what compiling or launching gives.
    pub fn quantized(&self, gpu: &Gpu, q: &QuantizedGemm<'_>) -> Result<(), GpuError> {
        self.quantized_by(gpu, q, Self::route(gpu, q))
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
        match route {
            Route::Naive => self.naive(gpu, q, &problem),
            Route::Mma => self.mma(gpu, q, &problem, false),
            Route::MmaS4 if fits_s4(q) => self.mma(gpu, q, &problem, true),
            Route::Wgmma(tiling) if fits_wgmma(q) && (q.block_size == 0 || tiling.blocks == 1) => {
                self.wgmma(gpu, q, &problem, tiling)
            }
            _ => Err(GpuError::unsupported(format!("a product of {} inputs by {route:?}", q.k))),
        }
    }

    /// A product of floats and quantised weights.
    ///
    /// # Errors
    /// As [`Gemm::quantized`].
    pub fn weight_only(&self, gpu: &Gpu, q: &WeightOnlyGemm<'_>) -> Result<(), GpuError> {
        let problem = q.problem()?;
        if q.rows == 0 {
            return Ok(());
        }
        let tensor_cores = q.element != Element::F32 && q.k.is_multiple_of(8) && aligned(q.x);
        let (key, tile, threads) = match tensor_cores {
            true => (Key::WeightOnly { grouped: q.block_size > 0 }, MMA_TILE, MMA_THREADS),
            false => (Key::WeightOnlyF32, F32_TILE, 256),
        };
        let shared = match (tensor_cores, q.weights.bits) {
            (false, _) => 0,
            (true, 4) => 3 * (4096 + 16384),
            (true, _) => 3 * (8192 + 16384),
        };
        let function = self.function(gpu, key, q.element, q.weights.bits)?;
        let launch = tiles(q.rows, q.weights.n, tile, threads)?.with_shared(shared);
        gpu.launch(&function, launch, &arguments(q.weights.ptr(), q.x, &problem))
    }

    /// The same by the naive kernel.
    ///
    /// # Errors
    /// As [`Gemm::quantized`].
    pub fn weight_only_naive(&self, gpu: &Gpu, q: &WeightOnlyGemm<'_>) -> Result<(), GpuError> {
        let problem = q.problem()?;
        let key = Key::Naive { weight_only: true };
        let function = self.function(gpu, key, q.element, q.weights.bits)?;
        let args = arguments(q.weights.ptr(), q.x, &problem);
        gpu.launch(&function, naive_launch(q.rows, q.weights.n), &args)
    }

    fn naive(&self, gpu: &Gpu, q: &QuantizedGemm<'_>, problem: &Problem) -> Result<(), GpuError> {
        let key = Key::Naive { weight_only: false };
        let function = self.function(gpu, key, q.element, q.weights.bits)?;
        let args = arguments(q.weights.ptr(), q.codes, problem);
        gpu.launch(&function, naive_launch(q.rows, q.weights.n), &args)
    }

    fn mma(
        &self,
        gpu: &Gpu,
        q: &QuantizedGemm<'_>,
        problem: &Problem,
        s4: bool,
    ) -> Result<(), GpuError> {
        let aligned = q.k.is_multiple_of(16) && aligned(q.codes);
        let key = Key::Mma { s4, grouped: q.block_size > 0, aligned };
        let function = self.function(gpu, key, q.element, q.weights.bits)?;
        // Stages, or the tile of results that is transposed through their place.
        let shared = (48 << 10).max(MMA_TILE * MMA_TILE * q.element.bytes());
        let launch = tiles(q.rows, q.weights.n, MMA_TILE, MMA_THREADS)?.with_shared(shared);
        gpu.launch(&function, launch, &arguments(q.weights.ptr(), q.codes, problem))
    }

    fn wgmma(
        &self,
        gpu: &Gpu,
        q: &QuantizedGemm<'_>,
        problem: &Problem,
        tiling: Tiling,
    ) -> Result<(), GpuError> {
        let (properties, bits) = (gpu.properties(), q.weights.bits);
        let stages = tiling.stages(bits, properties.shared_memory_per_block as usize);
        let key = Key::Wgmma { tiling, stages, grouped: q.block_size > 0 };
        let function = self.function(gpu, key, q.element, bits)?;
        let (weights, codes) = tiling.maps(gpu, q)?;
        let launch = Launch::linear(tiling.grid(q.rows, q.weights.n, properties), WGMMA_THREADS)
            .with_shared(tiling.shared(bits, stages))
            .overlapping();
        let args = Args::new()
            .bytes(weights.bytes())
            .bytes(codes.bytes())
            .bytes(bytemuck::bytes_of(problem));
        gpu.launch(&function, launch, &args)
    }

    fn function(
        &self,
        gpu: &Gpu,
        key: Key,
        element: Element,
        bits: u32,
    ) -> Result<Function, GpuError> {
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
        Key::Naive { weight_only: false } => gpu.function(&NAIVE, "naive_gemm", &common),
        Key::Naive { weight_only: true } => gpu.function(&NAIVE, "naive_weight_only", &common),
        Key::Mma { s4, grouped, aligned } => {
            let source = if s4 { &MMA_S4 } else { &MMA };
            let own = [("S4", flag(s4)), ("GROUPED", flag(grouped)), ("ALIGNED", flag(aligned))];
            gpu.function(source, "mma_gemm", &[common.as_slice(), &own].concat())
        }
        Key::Wgmma { tiling: Tiling { rows, blocks, band }, stages, grouped } => {
            let own = [rows, blocks, band, stages, grouped.into()].map(|value| value.to_string());
            let names = ["TILE_M", "BLOCKS", "BAND", "STAGES", "GROUPED"];
            let own: Vec<_> = names.into_iter().zip(own.iter().map(String::as_str)).collect();
            gpu.function(&WGMMA, "wgmma_gemm", &[common.as_slice(), &own].concat())
        }
        Key::WeightOnly { grouped } => {
            let own = [("GROUPED", flag(grouped))];
            gpu.function(&WEIGHT_ONLY, "weight_only", &[common.as_slice(), &own].concat())
        }
        Key::WeightOnlyF32 => gpu.function(&WEIGHT_ONLY_F32, "weight_only_f32", &common),
    }
}

fn aligned(pointer: DevicePtr) -> bool {
    pointer.0.is_multiple_of(16)
}

/// The copy engine wants rows of whole 16 bytes; groups end with a step of 64 inputs.
fn fits_wgmma(q: &QuantizedGemm<'_>) -> bool {
    q.block_size.is_multiple_of(64) && q.k.is_multiple_of(16) && aligned(q.codes)
}

/// Products of 64 inputs at once can't be cut into groups of fewer.
fn fits_s4(q: &QuantizedGemm<'_>) -> bool {
    q.code_bits == 4 && q.weights.bits == 4 && q.block_size.is_multiple_of(64)
}

fn arguments(weights: DevicePtr, x: DevicePtr, problem: &Problem) -> Args {
    Args::new().ptr(weights).ptr(x).bytes(bytemuck::bytes_of(problem))
}

fn naive_launch(rows: usize, n: usize) -> Launch {
    let mut launch = Launch::linear(n.div_ceil(128), 128);
    launch.grid[1] = rows.min(65_535) as u32;
    launch
}

fn tiles(rows: usize, n: usize, tile: usize, threads: u32) -> Result<Launch, GpuError> {
    let mut launch = Launch::linear(n.div_ceil(tile), threads).overlapping();
    launch.grid[1] = rows.div_ceil(tile) as u32;
    match launch.grid[1] {
        0..=65_535 => Ok(launch),
        _ => Err(GpuError::unsupported(format!("a product of {rows} rows"))),
    }
}
