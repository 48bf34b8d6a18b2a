//! Factors as the tensor cores read them.

use super::defines::Defines;
use super::sources::PACK;
use crate::{Args, DeviceBuffer, DevicePtr, Element, Gpu, GpuError, Launch};

/// P1 `[n1, n1]` and P2 `[n2, n2]`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// P1.
    pub p1: Option<DevicePtr>,
    /// P2.
    pub p2: Option<DevicePtr>,
    /// Their type: `F32`, or that of the tensors.
    pub element: Element,
    /// The same, packed ([`PackedFactors`]). Without it they are packed at each call.
    pub packed: Option<DevicePtr>,
}

impl Factors {
    /// None: rows are only quantised.
    pub const NONE: Self = Self { p1: None, p2: None, element: Element::F32, packed: None };

    /// Both are the identity.
    pub(super) fn are_absent(&self) -> bool {
        self.p1.is_none() && self.p2.is_none()
    }
}

/// Factors in the order of packing.cuh, made once for a model.
#[derive(Debug)]
pub struct PackedFactors {
    buffer: DeviceBuffer,
}

/// Vectors of 16 bytes of a factor.
pub(super) fn packed_words(n: usize) -> usize {
    n.div_ceil(16).pow(2) * 32
}

impl PackedFactors {
    /// Packs the factors for rows as `[n1, n2]`.
    ///
    /// # Errors
    /// Without memory, or if the kernel can't be made.
    pub fn new(gpu: &Gpu, n1: usize, n2: usize, factors: &Factors) -> Result<Self, GpuError> {
        let words =
            factors.p1.map_or(0, |_| packed_words(n1)) + factors.p2.map_or(0, |_| packed_words(n2));
        let buffer = gpu.alloc(words * 32)?;
        let kernel =
            Defines::default().factors(factors.element).compile(gpu, &PACK, "pack_factors")?;
        let args = Args::new().optional(factors.p1).optional(factors.p2).size(n1).size(n2);
        gpu.launch(&kernel, Launch::linear(words.div_ceil(256), 256), &args.ptr(buffer.ptr()))?;
        Ok(Self { buffer })
    }

    /// For [`Factors::packed`].
    pub fn ptr(&self) -> DevicePtr {
        self.buffer.ptr()
    }
}
