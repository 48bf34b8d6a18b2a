//! Weights as all kernels read them.

use std::sync::Arc;

use crate::{Archs, Args, DeviceBuffer, DevicePtr, Gpu, GpuError, Launch, Source};

/// Packing, on the device.
pub(crate) static PACK: Source = Source {
    name: "pack_weights.cu",
    text: include_str!("pack_weights.cu"),
    archs: Archs::All,
    variants: &[&[("BITS", "4")], &[("BITS", "8")]],
};

/// Codes of a linear layer in the order of tensor-core operands.
///
/// Tiles of 16 outputs and 64 (4 bits) or 32 (8 bits) inputs, `[N / 16][K / 64 or 32][32 lanes]
/// [16 bytes]`: what each lane of a warp hands to `mma.m16n8k32` (or `wgmma`) as its part of
/// operand A, so a warp reads a tile with one 16-byte load a lane. Of a lane's four words, with
/// g = lane / 4 and t = lane % 4, byte i of word 0 is (output g, input 4t + i); word 1 is output
/// g + 8, word 2 input + 16, word 3 both. With 4 bits the low nibble of each byte belongs to
/// inputs 0..32 of the tile, the high nibble to inputs 32..64, so that two masks give the operands
/// of two steps. Outputs are padded to a multiple of 64, inputs to one of 64, with zeros.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    data: Arc<DeviceBuffer>,
    offset: usize,
    /// 4 or 8.
    pub bits: u32,
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// Inputs with padding.
    pub padded_k: usize,
    /// Outputs with padding.
    pub padded_n: usize,
}

/// How codes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightOrder {
    /// Inputs by outputs, as the right operand of ONNX's `MatMul`.
    Kn,
    /// Outputs by inputs.
    Nk,
}

impl PackedWeights {
    /// Room for `k` inputs and `n` outputs, all zero.
    ///
    /// # Errors
    /// Other widths than 4 and 8 bits; no memory.
    pub fn zeroed(gpu: &Gpu, bits: u32, k: usize, n: usize) -> Result<Self, GpuError> {
        if !matches!(bits, 4 | 8) || k == 0 || n == 0 {
            return Err(GpuError::unsupported(format!("weights of {bits} bits, {k} by {n}")));
        }
        let (padded_k, padded_n) = (k.next_multiple_of(64), n.next_multiple_of(64));
        let n_bytes = padded_k * padded_n * bits as usize / 8;
        let data = gpu.alloc_exact(n_bytes)?;
        gpu.zero(data.ptr(), n_bytes)?;
        Ok(Self { data: Arc::new(data), offset: 0, bits, k, n, padded_k, padded_n })
    }

    /// Codes that are in the order of the format already; sizes with padding.
    ///
    /// # Errors
    /// If the memory has another size.
    pub fn of_packed(
        data: DeviceBuffer,
        bits: u32,
        (k, n): (usize, usize),
    ) -> Result<Self, GpuError> {
        let (padded_k, padded_n) = (k.next_multiple_of(64), n.next_multiple_of(64));
        let n_bytes = padded_k * padded_n * bits as usize / 8;
        if data.len() != n_bytes {
            let why = format!("{} bytes of packed codes, {n_bytes} are needed", data.len());
            return Err(GpuError::unsupported(why));
        }
        Ok(Self { data: Arc::new(data), offset: 0, bits, k, n, padded_k, padded_n })
    }

    /// Packs codes for all outputs. `codes` are the bytes of an ONNX tensor: INT8, or INT4 with
    /// the first element in the low nibble.
    ///
    /// # Errors
    /// If their number does not fit; no memory.
    pub fn pack(
        gpu: &Gpu,
        codes: &[u8],
        bits: u32,
        (k, n): (usize, usize),
        order: WeightOrder,
    ) -> Result<Self, GpuError> {
        let weights = Self::zeroed(gpu, bits, k, n)?;
        weights.fill(gpu, codes, 0, n, order)?;
        Ok(weights)
    }

    /// Packs codes for the outputs from `start`, `n` of them.
    ///
    /// # Errors
    /// As [`PackedWeights::pack`].
    pub fn fill(
        &self,
        gpu: &Gpu,
        codes: &[u8],
        start: usize,
        n: usize,
        order: WeightOrder,
    ) -> Result<(), GpuError> {
        let expected = (self.k * n * self.bits as usize).div_ceil(8);
        if codes.len() != expected || start + n > self.n {
            return Err(GpuError::unsupported(format!(
                "{} bytes of codes for {} inputs and {n} outputs",
                codes.len(),
                self.k
            )));
        }
        let raw = gpu.alloc(codes.len())?;
        gpu.write(raw.ptr(), codes)?;
        let bits = self.bits.to_string();
        let pack = gpu.function(&PACK, "pack_weights", &[("BITS", &bits)])?;
        let n_words = self.padded_k * self.padded_n * self.bits as usize / 32;
        let args = Args::new()
            .ptr(raw.ptr())
            .ptr(self.ptr())
            .size(self.k)
            .size(n)
            .size(start)
            .size(self.padded_k)
            .i32(i32::from(order == WeightOrder::Nk))
            .u64(n_words as u64);
        gpu.launch(&pack, Launch::linear(n_words.div_ceil(256), 256), &args)
    }

    /// The outputs from `start` on, `n` of them, in the same memory. `start` must be a multiple of
    /// 16, the outputs of a tile; what is beyond `n` in the last tile belongs to others, so results
    /// for it mean nothing.
    ///
    /// # Errors
    /// Other outputs than there are.
    pub fn part(&self, start: usize, n: usize) -> Result<Self, GpuError> {
        if !start.is_multiple_of(16) || n == 0 || start + n > self.n {
            let why = format!("outputs {start} to {} of weights for {}", start + n, self.n);
            return Err(GpuError::unsupported(why));
        }
        let offset = self.offset + start * self.padded_k * self.bits as usize / 8;
        // Kernels read whole tiles of 64 outputs: the memory reaches so far, if not beyond.
        let padded_n = n.next_multiple_of(64).min(self.padded_n - start);
        Ok(Self { offset, n, padded_n, ..self.clone() })
    }

    /// Bytes of all codes, padding included.
    pub fn bytes(&self) -> usize {
        self.padded_k * self.padded_n * self.bits as usize / 8
    }

    /// Where the codes are.
    pub fn ptr(&self) -> DevicePtr {
        self.data.ptr().offset(self.offset)
    }
}
