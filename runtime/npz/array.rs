//! One named array's type, shape and bytes.

use half::f16;

/// Element types that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NpyType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl NpyType {
    /// Every type with its code in a `.npy` header, less the byte order mark.
    const CODES: [(Self, &'static str); 12] = [
        (Self::Bool, "b1"),
        (Self::U8, "u1"),
        (Self::U16, "u2"),
        (Self::U32, "u4"),
        (Self::U64, "u8"),
        (Self::I8, "i1"),
        (Self::I16, "i2"),
        (Self::I32, "i4"),
        (Self::I64, "i8"),
        (Self::F16, "f2"),
        (Self::F32, "f4"),
        (Self::F64, "f8"),
    ];

    /// Size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// NumPy's two-character code, for instance `f4`.
    pub fn code(self) -> &'static str {
        Self::CODES.iter().find(|(dtype, _)| *dtype == self).map_or("", |(_, code)| code)
    }

    /// The type with this code.
    pub(super) fn from_code(code: &str) -> Option<Self> {
        Self::CODES.iter().find(|(_, c)| *c == code).map(|(dtype, _)| *dtype)
    }
}

/// An array: row-major, little-endian, `bytes.len() == dtype.size() * product(shape)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpyArray {
    /// Type of the elements.
    pub dtype: NpyType,
    /// Extents; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl NpyArray {
    /// An `f32` array from row-major `values`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: NpyType::F32, shape: shape.to_vec(), bytes }
    }

    /// An `i64` array from row-major `values`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: NpyType::I64, shape: shape.to_vec(), bytes }
    }

    /// The values of an `f32` or `f16` array; nothing for another type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let words = || self.bytes.as_chunks::<4>().0.iter();
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            NpyType::F32 => Some(words().map(|c| f32::from_le_bytes(*c)).collect()),
            NpyType::F16 => Some(halves().map(|c| f16::from_le_bytes(*c).to_f32()).collect()),
            _ => None,
        }
    }

    /// The values of an `i64` array; nothing for another type.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let (chunks, _) = self.bytes.as_chunks::<8>();
        (self.dtype == NpyType::I64)
            .then(|| chunks.iter().map(|c| i64::from_le_bytes(*c)).collect())
    }

    /// Bytes that the type and shape ask for; nothing when that overflows.
    pub(super) fn expected_len(dtype: NpyType, shape: &[usize]) -> Option<usize> {
        shape.iter().try_fold(dtype.size(), |n, &extent| n.checked_mul(extent))
    }
}
