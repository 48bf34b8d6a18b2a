//! Tensor infos: where a tensor's data lies and how it is encoded.

use std::io::Read;

use super::GgufError;
use super::reader::Reader;

/// ggml's own limit (`GGML_MAX_DIMS`).
const MAX_AXES: u32 = 4;

/// Encodings that this crate turns into f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// Blocks of 32: scale and minimum (f16), 32 unsigned 4-bit codes.
    Q4_1,
    /// Blocks of 32: scale (f16), 32 signed 8-bit codes.
    Q8_0,
}

impl TensorType {
    /// From ggml's type number.
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            _ => return None,
        })
    }

    /// Elements that share a block.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q4_1 | Self::Q8_0 => 32,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
        }
    }
}

/// One tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Axes, outermost first (GGUF stores them innermost first): a linear's are [out, in].
    pub shape: Vec<u64>,
    /// Encoding.
    pub dtype: TensorType,
    /// Where the data begins, in bytes from the file's start.
    pub offset: u64,
    /// Length of the encoded data in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Reads what follows the tensor's name; `offset` is still relative to the data's start.
    pub(super) fn parse(reader: &mut Reader<impl Read>, name: &str) -> Result<Self, GgufError> {
        let axis_count = reader.u32()?;
        let shape_error = |axes, reason| GgufError::TensorShape { name: name.into(), axes, reason };
        if axis_count > MAX_AXES {
            return Err(shape_error(Vec::new(), "are more than four"));
        }
        let axes = (0..axis_count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        let number = reader.u32()?;
        let dtype = TensorType::from_number(number)
            .ok_or_else(|| GgufError::TensorType { name: name.into(), number })?;
        let bytes = match encoded_bytes(&axes, dtype) {
            Ok(bytes) => bytes,
            Err(reason) => return Err(shape_error(axes, reason)),
        };
        let offset = reader.u64()?;
        Ok(Self { shape: axes.into_iter().rev().collect(), dtype, offset, bytes })
    }

    /// Turns the offset into one from the file's start; `None` when the data does not fit.
    pub(super) fn make_absolute(&mut self, data_start: u64, file_length: u64) -> Option<()> {
        self.offset = self.offset.checked_add(data_start)?;
        let end = self.offset.checked_add(self.bytes)?;
        (end <= file_length).then_some(())
    }
}

/// Bytes of a tensor with `axes`, innermost first.
fn encoded_bytes(axes: &[u64], dtype: TensorType) -> Result<u64, &'static str> {
    let block = dtype.block_elements() as u64;
    if axes.first().is_some_and(|innermost| innermost % block != 0) {
        return Err("do not hold whole blocks");
    }
    axes.iter()
        .try_fold(1u64, |elements, axis| elements.checked_mul(*axis))
        .and_then(|elements| (elements / block).checked_mul(dtype.block_bytes() as u64))
        .ok_or("are too large")
}
