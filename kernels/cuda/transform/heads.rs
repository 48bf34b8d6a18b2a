//! Transforms and quantisation of the vectors of heads.

use super::defines::Defines;
use super::factors::Factors;
use super::rows::{Output, RowSource, TransformRows};
use super::sources::HEADS;
use crate::{Args, DevicePtr, Element, Gpu, GpuError, Launch};

/// `TransformHeads`: the vector of each head times P.
#[derive(Debug, Clone, Copy)]
pub struct TransformHeads {
    /// Number of rows.
    pub rows: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head.
    pub d: usize,
    /// `[rows, heads · d]`.
    pub x: DevicePtr,
    /// P `[d, d]`.
    pub p: DevicePtr,
    /// Type of P: `F32`, or that of the rows.
    pub factor: Element,
    /// P, packed ([`super::PackedFactors`] with P as P2). Without it it is packed at each call.
    pub packed: Option<DevicePtr>,
    /// `[rows, heads · d]`; not x.
    pub y: DevicePtr,
    /// Type of x and y.
    pub element: Element,
}

impl TransformHeads {
    /// Starts the kernel: on tensor cores for 16-bit tensors, where it is a transform of rows of
    /// heads · d that has P2 alone.
    ///
    /// # Errors
    /// [`GpuError::Unsupported`] for sizes that it does not take.
    pub fn launch(&self, gpu: &Gpu) -> Result<(), GpuError> {
        if self.element == Element::F32 || self.rows * self.heads < 16 {
            return self.launch_plain(gpu);
        }
        let factors =
            Factors { p1: None, p2: Some(self.p), element: self.factor, packed: self.packed };
        // The heads of all rows are alike: 16 make a tile, whatever the number of a row's.
        let (n_heads, together) = (self.rows * self.heads, 16);
        let whole = n_heads / together;
        let rows = |rows, n1, first: usize| TransformRows {
            rows,
            n1,
            n2: self.d,
            source: RowSource::Plain { x: self.x.offset(first * self.d * self.element.bytes()) },
            factors,
            output: Output::Values(self.y.offset(first * self.d * self.element.bytes())),
            element: self.element,
        };
        rows(whole, together, 0).launch(gpu)?;
        let rest = n_heads % together;
        if rest == 0 {
            return Ok(());
        }
        rows(1, rest, whole * together).launch(gpu)
    }

    /// Starts the plain kernel.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_plain(&self, gpu: &Gpu) -> Result<(), GpuError> {
        let (d, n_heads) = (self.d, self.rows * self.heads);
        if d == 0 || d > 1024 {
            return Err(GpuError::unsupported(format!("heads of {d} elements")));
        }
        if n_heads == 0 {
            return Ok(());
        }
        let kernel = Defines::of(self.element).factors(self.factor).compile(
            gpu,
            &HEADS,
            "transform_heads",
        )?;
        let at_once = (256 / d).max(1);
        let limit = gpu.properties().shared_memory_per_block as usize;
        let in_shared = (d * d + at_once * d) * 4 <= limit;
        let shared = (if in_shared { d * d } else { 0 } + at_once * d) * 4;
        let blocks = n_heads.div_ceil(at_once).min(4 * gpu.properties().multiprocessors as usize);
        let launch = Launch { block: [d as u32, at_once as u32, 1], ..Launch::linear(blocks, 1) }
            .with_shared(shared)
            .overlapping();
        let args = Args::new().ptr(self.x).ptr(self.p).ptr(self.y).u64(n_heads as u64).size(d);
        gpu.launch(&kernel, launch, &args.i32(i32::from(in_shared)))
    }
}

/// `QuantizeDequantizeHeads`: asymmetric codes of each head's vector, read back.
#[derive(Debug, Clone, Copy)]
pub struct QuantizeDequantizeHeads {
    /// Vectors in all: rows · heads.
    pub n_heads: usize,
    /// Elements of a head.
    pub d: usize,
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Factor on a vector's smallest element.
    pub clip_min: f32,
    /// Factor on its largest.
    pub clip_max: f32,
    /// `[n_heads, d]`.
    pub x: DevicePtr,
    /// `[n_heads, d]`; may be x.
    pub y: DevicePtr,
    /// Type of x and y.
    pub element: Element,
}

impl QuantizeDequantizeHeads {
    /// Starts the kernel.
    ///
    /// # Errors
    /// [`GpuError::Unsupported`] for a number of bits that it does not take.
    pub fn launch(&self, gpu: &Gpu) -> Result<(), GpuError> {
        if !(2..=8).contains(&self.bits) {
            return Err(GpuError::unsupported(format!("{} bits; 2 to 8 are possible", self.bits)));
        }
        if self.n_heads == 0 || self.d == 0 {
            return Ok(());
        }
        let kernel = Defines::of(self.element).factors(Element::F32).compile(
            gpu,
            &HEADS,
            "quantise_dequantise_heads",
        )?;
        let args = Args::new()
            .ptr(self.x)
            .ptr(self.y)
            .u64(self.n_heads as u64)
            .size(self.d)
            .f32(self.clip_min)
            .f32(self.clip_max)
            .f32(((1u32 << self.bits) - 1) as f32);
        gpu.launch(&kernel, Launch::linear(self.n_heads.div_ceil(8), 256).overlapping(), &args)
    }
}
