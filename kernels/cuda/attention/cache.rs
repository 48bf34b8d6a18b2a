//! The KV cache of one layer.

use std::sync::OnceLock;

use super::prepare_plan::KINDS;
use crate::{DeviceBuffer, DevicePtr, Element, Function, Gpu, GpuError, Source};

/// Factors on the smallest and the largest value of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// On the smallest.
    pub min: f32,
    /// On the largest.
    pub max: f32,
}

impl Default for Clip {
    fn default() -> Self {
        Self { min: 1.0, max: 1.0 }
    }
}

/// How cached elements are kept. The integer formats are asymmetric per token and head: with
/// q = 2^bits − 1, low = min · clip.min and high = max · clip.max,
/// scale = max(high − low, 1e-8) / q, zero = round(−low / scale),
/// code = clamp(round(x / scale) + zero, 0, q).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CacheFormat {
    /// As the tensors of the engine.
    Element,
    /// 8-bit codes.
    Int8 {
        /// Clips of the keys.
        keys: Clip,
        /// Clips of the values.
        values: Clip,
    },
    /// 4-bit codes.
    Int4 {
        /// Clips of the keys.
        keys: Clip,
        /// Clips of the values.
        values: Clip,
    },
}

impl CacheFormat {
    /// Bits of an element.
    pub fn bits(self, element: Element) -> usize {
        match self {
            Self::Element => 8 * element.bytes(),
            Self::Int8 { .. } => 8,
            Self::Int4 { .. } => 4,
        }
    }

    /// Whether codes are kept, with scales.
    pub fn has_codes(self) -> bool {
        self != Self::Element
    }

    /// Clips of keys and values.
    pub(super) fn clips(self) -> [Clip; 2] {
        match self {
            Self::Element => [Clip::default(); 2],
            Self::Int8 { keys, values } | Self::Int4 { keys, values } => [keys, values],
        }
    }
}

/// Sizes and formats of a cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvShape {
    /// Sequences.
    pub batch: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Channels of a head: a multiple of 8, at most 256.
    pub head_dim: usize,
    /// How queries, new keys and values, and outputs are stored.
    pub element: Element,
    /// How cached ones are.
    pub format: CacheFormat,
}

impl KvShape {
    /// Bytes of one token's head.
    pub(super) fn row_bytes(&self) -> usize {
        self.head_dim * self.format.bits(self.element) / 8
    }

    /// Heads of all sequences.
    fn lines(&self) -> usize {
        self.batch * self.kv_heads
    }

    /// Bytes of `tokens` positions: codes or elements, and parameters, of keys and values.
    fn bytes(&self, tokens: usize) -> usize {
        let parameters = if self.format.has_codes() { PARAMETER_BYTES } else { 0 };
        2 * self.lines() * tokens * (self.row_bytes() + parameters)
    }

    fn check(&self) -> Result<(), GpuError> {
        if !(8..=256).contains(&self.head_dim) || !self.head_dim.is_multiple_of(8) {
            return Err(GpuError::unsupported(format!(
                "attention takes heads of 8 to 256 channels, a multiple of 8, not {}",
                self.head_dim
            )));
        }
        if self.lines() == 0 {
            return Err(GpuError::unsupported("a cache needs at least one sequence and head"));
        }
        Ok(())
    }

    /// Kernels count positions, and bytes of one head, in 32 bits.
    pub(super) fn check_capacity(&self, capacity: usize) -> Result<(), GpuError> {
        super::int(capacity.saturating_mul(self.row_bytes())).map(|_| ())
    }
}

/// Scale and zero point, two f32.
const PARAMETER_BYTES: usize = 8;

/// Counters for a head: tiles of 16 query rows that decoding may have.
pub(super) const TILES: usize = 64;

/// Keys and values of one layer on the device: each `[batch, kv_heads, capacity, row]`, with
/// parameters f32 `[batch, kv_heads, capacity, 2]` (scale, zero point) where codes are kept. How
/// many positions are in use, the caller knows.
///
/// Rows of 4-bit codes hold eight channels a 32-bit word: channel 2i in nibble i, channel 2i + 1 in
/// nibble i + 4.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    capacity: usize,
    pub(super) stores: [Store; 2],
    /// For the parts of decoding to find out which is the last; zero between launches.
    pub(super) arrived: DeviceBuffer,
    pub(super) kernels: Kernels,
}

/// Keys or values.
#[derive(Debug)]
pub(super) struct Store {
    pub rows: DeviceBuffer,
    pub parameters: Option<DeviceBuffer>,
}

impl Store {
    fn new(gpu: &Gpu, shape: &KvShape, capacity: usize) -> Result<Self, GpuError> {
        let tokens = shape.lines() * capacity;
        let rows = gpu.alloc_exact(tokens * shape.row_bytes())?;
        let parameters = shape.format.has_codes();
        let parameters =
            parameters.then(|| gpu.alloc_exact(tokens * PARAMETER_BYTES)).transpose()?;
        Ok(Self { rows, parameters })
    }

    pub fn parameters(&self) -> Option<DevicePtr> {
        self.parameters.as_ref().map(DeviceBuffer::ptr)
    }
}

impl KvCache {
    /// An empty cache for `capacity` positions.
    ///
    /// # Errors
    /// If there is too little memory, or heads have a size that the kernels don't take.
    pub fn new(gpu: &Gpu, shape: KvShape, capacity: usize) -> Result<Self, GpuError> {
        shape.check()?;
        let capacity = capacity.max(1);
        shape.check_capacity(capacity)?;
        let arrived = gpu.alloc_exact(4 * TILES * shape.lines())?;
        gpu.zero(arrived.ptr(), arrived.len())?;
        let stores = [Store::new(gpu, &shape, capacity)?, Store::new(gpu, &shape, capacity)?];
        Ok(Self { shape, capacity, stores, arrived, kernels: Kernels::default() })
    }

    /// Sizes and formats.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that `len` positions take.
    pub fn bytes_used(&self, len: usize) -> usize {
        self.shape.bytes(len)
    }

    /// Bytes that all positions take.
    pub fn bytes(&self) -> usize {
        self.shape.bytes(self.capacity)
    }

    /// Makes room for `capacity` positions; keeps the contents. Addresses change.
    ///
    /// # Errors
    /// If there is too little memory; the cache is then as before.
    pub fn grow(&mut self, gpu: &Gpu, capacity: usize) -> Result<(), GpuError> {
        if capacity <= self.capacity {
            return Ok(());
        }
        self.shape.check_capacity(capacity)?;
        let wider = || Store::new(gpu, &self.shape, capacity);
        let stores = [wider()?, wider()?];
        for (from, to) in self.stores.iter().zip(&stores) {
            self.copy_lines(gpu, &from.rows, &to.rows, capacity, self.shape.row_bytes())?;
            if let (Some(from), Some(to)) = (&from.parameters, &to.parameters) {
                self.copy_lines(gpu, from, to, capacity, PARAMETER_BYTES)?;
            }
        }
        // What is replaced may be in use by work that was started.
        gpu.synchronize()?;
        (self.stores, self.capacity) = (stores, capacity);
        Ok(())
    }

    fn copy_lines(
        &self,
        gpu: &Gpu,
        from: &DeviceBuffer,
        to: &DeviceBuffer,
        capacity: usize,
        width: usize,
    ) -> Result<(), GpuError> {
        (0..self.shape.lines()).try_for_each(|line| {
            let from = from.ptr().offset(line * self.capacity * width);
            gpu.copy(from, to.ptr().offset(line * capacity * width), self.capacity * width)
        })
    }

    /// A kernel with the cache's definitions and `more`.
    pub(super) fn function(
        &self,
        gpu: &Gpu,
        source: &'static Source,
        entry: &str,
        more: &[(&str, &str)],
    ) -> Result<Function, GpuError> {
        let bits = self.shape.format.bits(self.shape.element).to_string();
        self.function_for(gpu, source, entry, &bits, more)
    }

    /// The same for a cache of other bits.
    pub(super) fn function_for(
        &self,
        gpu: &Gpu,
        source: &'static Source,
        entry: &str,
        bits: &str,
        more: &[(&str, &str)],
    ) -> Result<Function, GpuError> {
        let dim = self.shape.head_dim.to_string();
        let mut defines = vec![self.shape.element.define(), ("HEAD_DIM", &dim), ("FORMAT", bits)];
        defines.extend(more);
        gpu.function(source, entry, &defines)
    }
}

/// Kernels that were used once.
#[derive(Default)]
pub(super) struct Kernels {
    pub prepare: [OnceLock<Function>; 2 * KINDS],
    pub decode: [OnceLock<Function>; 2],
    pub decode_in_clusters: [OnceLock<Function>; 2],
    pub step: [OnceLock<Function>; 8],
    pub prefill: OnceLock<Function>,
    pub prefill_wide: OnceLock<Function>,
    pub prefill_hopper: OnceLock<Function>,
    pub expand: OnceLock<Function>,
    pub naive: OnceLock<Function>,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernels")
    }
}

/// What is held, or what `make` gives from now on.
pub(super) fn held(
    slot: &OnceLock<Function>,
    make: impl FnOnce() -> Result<Function, GpuError>,
) -> Result<&Function, GpuError> {
    if slot.get().is_none() {
        // Another thread may have been faster; both are the same.
        let _ = slot.set(make()?);
    }
    slot.get().ok_or_else(|| GpuError::unsupported("a kernel was not kept"))
}
