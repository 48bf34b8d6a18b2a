//! Element types, numbered as in ONNX's `TensorProto.DataType`.

use std::fmt;

/// Element type of a tensor. The discriminants are ONNX's own numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum DataType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    String = 8,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
    C64 = 14,
    C128 = 15,
    BF16 = 16,
    F8E4M3FN = 17,
    F8E4M3FNUZ = 18,
    F8E5M2 = 19,
    F8E5M2FNUZ = 20,
    U4 = 21,
    I4 = 22,
    F4E2M1 = 23,
    F8E8M0 = 24,
    U2 = 25,
    I2 = 26,
}

use DataType::*;

const ALL: [(DataType, &str, usize); 26] = [
    (F32, "float", 32),
    (U8, "uint8", 8),
    (I8, "int8", 8),
    (U16, "uint16", 16),
    (I16, "int16", 16),
    (I32, "int32", 32),
    (I64, "int64", 64),
    (String, "string", 0),
    (Bool, "bool", 8),
    (F16, "float16", 16),
    (F64, "double", 64),
    (U32, "uint32", 32),
    (U64, "uint64", 64),
    (C64, "complex64", 64),
    (C128, "complex128", 128),
    (BF16, "bfloat16", 16),
    (F8E4M3FN, "float8e4m3fn", 8),
    (F8E4M3FNUZ, "float8e4m3fnuz", 8),
    (F8E5M2, "float8e5m2", 8),
    (F8E5M2FNUZ, "float8e5m2fnuz", 8),
    (U4, "uint4", 4),
    (I4, "int4", 4),
    (F4E2M1, "float4e2m1", 4),
    (F8E8M0, "float8e8m0", 8),
    (U2, "uint2", 2),
    (I2, "int2", 2),
];

impl DataType {
    /// The type with ONNX's number `code`, `None` for undefined or unknown numbers.
    pub fn from_onnx(code: i32) -> Option<Self> {
        ALL.iter().find(|(t, ..)| *t as i32 == code).map(|(t, ..)| *t)
    }

    /// ONNX's number of this type.
    pub fn to_onnx(self) -> i32 {
        self as i32
    }

    /// The name in ONNX's text syntax, such as `float` or `int4`.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(t, ..)| *t == self).map_or("undefined", |(_, name, _)| name)
    }

    /// The type that ONNX's text syntax calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, n, _)| *n == name).map(|(t, ..)| *t)
    }

    /// Bits of one element; 0 for strings.
    pub fn bits(self) -> usize {
        ALL.iter().find(|(t, ..)| *t == self).map_or(0, |(.., bits)| *bits)
    }

    /// Bytes that `n` elements take, sub-byte types packed without padding between elements.
    /// `None` if the count overflows.
    pub fn n_bytes(self, n: usize) -> Option<usize> {
        n.checked_mul(self.bits()).map(|bits| bits.div_ceil(8))
    }

    /// Whether the elements are real floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, F32 | F64 | F16 | BF16)
    }

    /// Whether the elements are integers (bool is not).
    pub fn is_integer(self) -> bool {
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_both_ways() {
        for code in 1..=26 {
            let dtype = DataType::from_onnx(code).unwrap();
            assert_eq!(dtype.to_onnx(), code);
            assert_eq!(DataType::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(DataType::from_onnx(0), None);
        assert_eq!(DataType::from_onnx(99), None);
    }

    #[test]
    fn four_bit_elements_are_packed() {
        assert_eq!(I4.n_bytes(5), Some(3));
        assert_eq!(F32.n_bytes(usize::MAX), None);
    }
}
