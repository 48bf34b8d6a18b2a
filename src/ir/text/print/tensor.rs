//! Data of tensors.

use super::literal::{self, quoted_bytes};
use crate::{DataType, Tensor};

/// `{1, 2, 3}`: the elements in flat order. Floats of 16 and 8 bits are given as their bit
/// patterns, complex numbers as real and imaginary parts, as ONNX's syntax wants it.
pub(super) fn data(tensor: &Tensor) -> String {
    format!("{{{}}}", elements(tensor).join(", "))
}

fn elements(tensor: &Tensor) -> Vec<String> {
    use DataType::*;
    let bytes = tensor.bytes();
    match tensor.dtype() {
        String => {
            let strings = tensor.strings().unwrap_or_default();
            strings.iter().map(|s| quoted_bytes(s)).collect()
        }
        F32 | C64 => each(bytes, |b| literal::f32(f32::from_le_bytes(b))),
        F64 | C128 => each(bytes, |b| literal::f64(f64::from_le_bytes(b))),
        I64 => each(bytes, |b| i64::from_le_bytes(b).to_string()),
        U64 => each(bytes, |b| u64::from_le_bytes(b).to_string()),
        I32 => each(bytes, |b| i32::from_le_bytes(b).to_string()),
        U32 => each(bytes, |b| u32::from_le_bytes(b).to_string()),
        I16 => each(bytes, |b| i16::from_le_bytes(b).to_string()),
        U16 | F16 | BF16 => each(bytes, |b| u16::from_le_bytes(b).to_string()),
        I8 => each(bytes, |b| i8::from_le_bytes(b).to_string()),
        U4 | F4E2M1 => packed(tensor, 4, false),
        I4 => packed(tensor, 4, true),
        U2 => packed(tensor, 2, false),
        I2 => packed(tensor, 2, true),
        U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => {
            bytes.iter().map(u8::to_string).collect()
        }
    }
}

/// The elements of `N` bytes each.
fn each<const N: usize>(bytes: &[u8], print: impl Fn([u8; N]) -> String) -> Vec<String> {
    bytes.as_chunks::<N>().0.iter().map(|b| print(*b)).collect()
}

/// The elements of less than a byte, the first in the low bits.
fn packed(tensor: &Tensor, bits: usize, signed: bool) -> Vec<String> {
    let per_byte = 8 / bits;
    let code = |i: usize| {
        let byte = tensor.bytes()[i / per_byte];
        let code = i32::from(byte >> (bits * (i % per_byte))) & ((1 << bits) - 1);
        if signed && code >> (bits - 1) == 1 { code - (1 << bits) } else { code }
    };
    (0..tensor.n_elements()).map(|i| code(i).to_string()).collect()
}
