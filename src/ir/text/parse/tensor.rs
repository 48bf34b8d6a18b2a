//! Tensors.

use half::{bf16, f16};

use super::Parser;
use super::cursor::{Literal, Parsed};
use crate::{DataType, Tensor, TensorType, ValueType};

impl Parser<'_> {
    /// The data `{1, 2}` of a tensor of type `ty`.
    pub(super) fn tensor_data(&mut self, ty: &ValueType) -> Parsed<Tensor> {
        let start = self.cursor.position();
        let Some((dtype, shape)) = ty.as_tensor().and_then(numbers) else {
            return Err(self.cursor.error_at(start, "data needs a tensor type with numeric sizes"));
        };
        if self.cursor.peek() == Some('[') {
            return self.cursor.error("data in external files can't be read from a text");
        }
        self.cursor.expect('{')?;
        let tensor = if dtype == DataType::String {
            let strings = self.items('}', |p| Ok(p.cursor.string_bytes()?.into()))?;
            Tensor::from_strings(shape, strings)
        } else {
            let mut data = Vec::new();
            self.items('}', |parser| parser.element(dtype, &mut data))?;
            Tensor::new(dtype, shape, pack(dtype, data).into())
        };
        tensor.map_err(|error| self.cursor.error_at(start, error.to_string()))
    }

    /// Appends one element; those of less than a byte take a byte each for the moment.
    fn element(&mut self, dtype: DataType, out: &mut Vec<u8>) -> Parsed<()> {
        use DataType::*;
        match dtype {
            F32 | C64 => out.extend(self.float::<f32>()?.to_le_bytes()),
            F64 | C128 => out.extend(self.float::<f64>()?.to_le_bytes()),
            F16 | BF16 => out.extend(self.half(dtype)?.to_le_bytes()),
            I64 => out.extend(self.cursor.integer::<i64>()?.to_le_bytes()),
            U64 => out.extend(self.cursor.integer::<u64>()?.to_le_bytes()),
            I32 => out.extend(self.cursor.integer::<i32>()?.to_le_bytes()),
            U32 => out.extend(self.cursor.integer::<u32>()?.to_le_bytes()),
            I16 => out.extend(self.cursor.integer::<i16>()?.to_le_bytes()),
            U16 => out.extend(self.cursor.integer::<u16>()?.to_le_bytes()),
            I8 => out.extend(self.cursor.integer::<i8>()?.to_le_bytes()),
            I4 => out.push(self.small(-8, 7)?),
            U4 | F4E2M1 => out.push(self.small(0, 15)?),
            I2 => out.push(self.small(-2, 1)?),
            U2 => out.push(self.small(0, 3)?),
            Bool => out.push(self.small(0, 1)?),
            _ => out.push(self.cursor.integer::<u8>()?),
        }
        Ok(())
    }

    /// An integer from `low` to `high`, its low byte.
    fn small(&mut self, low: i8, high: i8) -> Parsed<u8> {
        let start = self.cursor.position();
        let value: i8 = self.cursor.integer()?;
        if (low..=high).contains(&value) {
            return Ok(value as u8);
        }
        Err(self.cursor.error_at(start, format!("{value} is not from {low} to {high}")))
    }

    pub(super) fn float<T: std::str::FromStr>(&mut self) -> Parsed<T> {
        let start = self.cursor.position();
        let (Literal::Int(word) | Literal::Float(word)) = self.cursor.literal()? else {
            return Err(self.cursor.error_at(start, "expected a number"));
        };
        word.parse().map_err(|_| self.cursor.error_at(start, "expected a number"))
    }

    /// The bits of a 16-bit float: an integer says them, a number with a point is converted.
    fn half(&mut self, dtype: DataType) -> Parsed<u16> {
        let start = self.cursor.position();
        let number = match self.cursor.literal()? {
            Literal::Int(word) => match word.parse() {
                Ok(bits) => return Ok(bits),
                Err(_) => None,
            },
            Literal::Float(word) => word.parse::<f32>().ok(),
            Literal::String(_) => None,
        };
        let bits = |x: f32| match dtype {
            DataType::BF16 => bf16::from_f32(x).to_bits(),
            _ => f16::from_f32(x).to_bits(),
        };
        number.map(bits).ok_or_else(|| self.cursor.error_at(start, "expected a 16-bit float"))
    }
}

fn numbers(ty: &TensorType) -> Option<(DataType, Vec<usize>)> {
    let shape: Option<Vec<usize>> = ty.shape.as_ref()?.iter().map(|d| d.as_usize()).collect();
    Some((ty.dtype?, shape?))
}

/// Packs elements of less than a byte, the first into the low bits.
fn pack(dtype: DataType, data: Vec<u8>) -> Vec<u8> {
    let bits = dtype.bits();
    if bits >= 8 {
        return data;
    }
    let mask = (1u8 << bits) - 1;
    let pack = |codes: &[u8]| {
        codes.iter().enumerate().fold(0, |byte, (i, code)| byte | (code & mask) << (bits * i))
    };
    data.chunks(8 / bits).map(pack).collect()
}
