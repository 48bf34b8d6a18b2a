//! Integer tensors of any width from i64 values.

use bytes::Bytes;
use planish_ir::{DataType, Tensor};

use crate::OpError;

/// The smallest and the largest value of an integer type of up to 32 bits.
pub(in crate::ops) fn range(dtype: DataType) -> Result<(i64, i64), OpError> {
    let bits = dtype.bits() as u32;
    match dtype {
        DataType::U4 | DataType::U8 | DataType::U16 => Ok((0, (1 << bits) - 1)),
        DataType::I4 | DataType::I8 | DataType::I16 | DataType::I32 => {
            Ok((-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
        }
        other => Err(OpError::unsupported(format!("codes of type {other}"))),
    }
}

/// A tensor of an integer type, of values inside its range.
pub(in crate::ops) fn tensor(
    dtype: DataType,
    shape: &[usize],
    values: &[i64],
) -> Result<Tensor, OpError> {
    let bytes: Vec<u8> = match dtype.bits() {
        4 => {
            let pair = |pair: &[i64]| {
                (pair[0] as u8 & 0xF) | pair.get(1).map_or(0, |high| (*high as u8 & 0xF) << 4)
            };
            values.chunks(2).map(pair).collect()
        }
        bits => values.iter().flat_map(|v| v.to_le_bytes()[..bits / 8].to_vec()).collect(),
    };
    Ok(Tensor::new(dtype, shape.to_vec(), Bytes::from(bytes))?)
}
