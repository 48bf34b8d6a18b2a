//! com.microsoft's `GatherBlockQuantized`: rows of a table of 4- or 8-bit codes, each block of
//! `block_size` columns with a scale and a zero point (2^(bits−1) by default). Tables of UINT8,
//! rows along axis 0 and blocks along axis 1.

use planish_ir::{DataType, Dim, Tensor};

use super::support::{dense, facts};
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("GatherBlockQuantized", infer, eval).in_domain(MICROSOFT)];

/// Codes in a byte of the table: 2 of 4 bits, 1 of 8.
fn codes_per_byte(op: &OpNode, dtype: Option<DataType>) -> Result<usize, OpError> {
    let node = op.node;
    let by_rows = node.int("gather_axis", 0) == 0 && matches!(node.int("quantize_axis", 1), 1 | -1);
    match (dtype, node.int("bits", 4)) {
        (Some(DataType::U8), 4) if by_rows => Ok(2),
        (Some(DataType::U8), 8) if by_rows => Ok(1),
        _ => Err(OpError::unsupported(
            "GatherBlockQuantized of other than rows of 4- or 8-bit codes in bytes",
        )),
    }
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let table = facts::required(inputs, 0)?;
    let (ids, scales) = (facts::required(inputs, 1)?, facts::required(inputs, 2)?);
    let per_byte = codes_per_byte(op, table.dtype)?;
    let width = table.dim(1).map(|width| width.mul(&Dim::from(per_byte)));
    let shape = ids.shape.clone().zip(width).map(|(mut shape, width)| {
        shape.push(width);
        shape
    });
    Ok(vec![Fact::new(scales.dtype, shape)])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (table, ids) = (required(inputs, 0)?, required(inputs, 1)?);
    let per_byte = codes_per_byte(op, Some(table.dtype()))?;
    let [n_rows, n_bytes] = table.shape()[..] else {
        return Err(OpError::shape(format!("a table of the shape {:?}", table.shape())));
    };
    let block = usize::try_from(op.node.int("block_size", 128)).unwrap_or(0);
    if block == 0 {
        return Err(OpError::unsupported("attribute block_size must be positive"));
    }
    let (width, bits) = (n_bytes * per_byte, 8 / per_byte);
    let n_blocks = width.div_ceil(block);
    let code = |bytes: &[u8], i: usize| match per_byte {
        2 => (bytes[i / 2] >> (4 * (i % 2))) & 0xF,
        _ => bytes[i],
    };
    let scale = required(inputs, 2)?;
    let scales = scale.to_f32_vec()?;
    let zeros = optional(inputs, 3);
    let zero_bytes = (n_blocks * bits).div_ceil(8);
    let fits = zeros.is_none_or(|zeros| zeros.bytes().len() == n_rows * zero_bytes);
    if scales.len() != n_rows * n_blocks || !fits {
        return Err(OpError::shape("the scales or zero points do not fit the table"));
    }
    let mut data = Vec::with_capacity(ids.n_elements() * width);
    for id in ids.to_i64_vec()? {
        let from_end = if id < 0 { id + n_rows as i64 } else { id };
        let row = usize::try_from(from_end).ok().filter(|row| *row < n_rows);
        let row = row.ok_or_else(|| OpError::shape(format!("row {id} of {n_rows}")))?;
        let bytes = &table.bytes()[row * n_bytes..(row + 1) * n_bytes];
        data.extend((0..width).map(|i| {
            let zero = zeros.map_or(1 << (bits - 1), |zeros| {
                code(&zeros.bytes()[row * zero_bytes..], i / block)
            });
            (f32::from(code(bytes, i)) - f32::from(zero)) * scales[row * n_blocks + i / block]
        }));
    }
    let shape = [ids.shape(), &[width]].concat();
    Ok(vec![dense::of_f32(scale.dtype(), &shape, data)?])
}
