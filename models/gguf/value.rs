//! Metadata values.

use std::io::Read;

use super::GgufError;
use super::reader::Reader;

/// GGUF allows arrays of arrays without a limit; real files hold flat ones.
const MAX_NESTING: usize = 4;

/// A metadata value; every width of integer and float is kept in the widest.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// One byte, not zero for true.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// An array, of which only the number of elements is kept.
    Array {
        /// Number of elements.
        length: u64,
    },
}

impl Value {
    /// The value of a non-negative integer of any width.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// A type number (u32), then a value of that type.
    pub(super) fn read(reader: &mut Reader<impl Read>) -> Result<Self, GgufError> {
        let number = reader.u32()?;
        Self::read_typed(reader, number, 0)
    }

    fn read_typed(
        reader: &mut Reader<impl Read>,
        number: u32,
        depth: usize,
    ) -> Result<Self, GgufError> {
        Ok(match number {
            0 => Self::Unsigned(u8::from_le_bytes(reader.bytes()?).into()),
            1 => Self::Signed(i8::from_le_bytes(reader.bytes()?).into()),
            2 => Self::Unsigned(u16::from_le_bytes(reader.bytes()?).into()),
            3 => Self::Signed(i16::from_le_bytes(reader.bytes()?).into()),
            4 => Self::Unsigned(reader.u32()?.into()),
            5 => Self::Signed(i32::from_le_bytes(reader.bytes()?).into()),
            6 => Self::Float(f32::from_le_bytes(reader.bytes()?).into()),
            7 => Self::Bool(reader.bytes::<1>()? != [0]),
            8 => Self::String(reader.string()?),
            9 => Self::read_array(reader, depth)?,
            10 => Self::Unsigned(reader.u64()?),
            11 => Self::Signed(i64::from_le_bytes(reader.bytes()?)),
            12 => Self::Float(f64::from_le_bytes(reader.bytes()?)),
            other => return Err(GgufError::ValueType(other)),
        })
    }

    /// An element type, a length (u64), then the elements, which are read and dropped.
    fn read_array(reader: &mut Reader<impl Read>, depth: usize) -> Result<Self, GgufError> {
        if depth == MAX_NESTING {
            return Err(GgufError::Nesting);
        }
        let number = reader.u32()?;
        let length = reader.u64()?;
        for _ in 0..length {
            Self::read_typed(reader, number, depth + 1)?;
        }
        Ok(Self::Array { length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Value, GgufError> {
        Value::read(&mut Reader::new(bytes, bytes.len() as u64))
    }

    fn typed(number: u32, value: &[u8]) -> Vec<u8> {
        [&number.to_le_bytes()[..], value].concat()
    }

    #[test]
    fn every_scalar_type_is_read() {
        let cases = [
            (typed(0, &[200]), Value::Unsigned(200)),
            (typed(1, &[0xff]), Value::Signed(-1)),
            (typed(2, &40_000u16.to_le_bytes()), Value::Unsigned(40_000)),
            (typed(3, &(-2i16).to_le_bytes()), Value::Signed(-2)),
            (typed(4, &7u32.to_le_bytes()), Value::Unsigned(7)),
            (typed(5, &(-3i32).to_le_bytes()), Value::Signed(-3)),
            (typed(6, &0.5f32.to_le_bytes()), Value::Float(0.5)),
            (typed(7, &[1]), Value::Bool(true)),
            (typed(10, &(1u64 << 40).to_le_bytes()), Value::Unsigned(1 << 40)),
            (typed(11, &(-4i64).to_le_bytes()), Value::Signed(-4)),
            (typed(12, &0.25f64.to_le_bytes()), Value::Float(0.25)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(&bytes).unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_type_is_refused() {
        assert!(matches!(read(&typed(13, &[0; 8])), Err(GgufError::ValueType(13))));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let bytes = typed(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]);
        assert!(matches!(read(&bytes), Err(GgufError::Utf8)));
    }
}
