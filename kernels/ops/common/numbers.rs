//! The elements of a tensor as wide numbers, for reference evaluations that know two cases only:
//! floating point and integers.

use half::{bf16, f16};
use planish_ir::{DataType, Tensor};

use super::index::count;
use crate::OpError;

/// Elements widened without loss. An f32 operation carried out in f64 and rounded once gives the
/// f32 result for + − × ÷ and square roots, as f64 has more than twice the precision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    /// f64, f32, f16 and bf16.
    Floats(Vec<f64>),
    /// Integers of all widths; bools as 0 and 1.
    Ints(Vec<i128>),
}

impl Numbers {
    /// The elements of `tensor`.
    ///
    /// # Errors
    /// For strings, complex numbers and 8-bit floats.
    pub(crate) fn read(tensor: &Tensor) -> Result<Self, OpError> {
        Ok(match tensor.dtype() {
            DataType::F64 => Self::Floats(tensor.as_slice::<f64>()?.into_owned()),
            dtype if dtype.is_float() => {
                Self::Floats(tensor.to_f32_vec()?.into_iter().map(f64::from).collect())
            }
            DataType::U64 => {
                Self::Ints(tensor.as_slice::<u64>()?.iter().map(|x| i128::from(*x)).collect())
            }
            _ => Self::Ints(tensor.to_i64_vec()?.into_iter().map(i128::from).collect()),
        })
    }

    /// The elements as f64.
    pub(crate) fn into_floats(self) -> Vec<f64> {
        match self {
            Self::Floats(values) => values,
            Self::Ints(values) => values.into_iter().map(|x| x as f64).collect(),
        }
    }

    /// A tensor of them. Floats become integers by truncation: of 16 bits and fewer the low bits
    /// of the integer, as in ONNX Runtime, of 32 and 64 bits saturating (ONNX leaves both open);
    /// NaN becomes 0. What is not 0 becomes true. Integers keep their low bits.
    ///
    /// # Errors
    /// For the types that [`Numbers::read`] can't read, and counts that do not fit the shape.
    pub(crate) fn write(self, dtype: DataType, shape: &[usize]) -> Result<Tensor, OpError> {
        let n = count(shape)?;
        if self.len() != n {
            return Err(OpError::shape(format!("{} elements for shape {shape:?}", self.len())));
        }
        match self {
            Self::Floats(values) => write_floats(&values, dtype, shape),
            Self::Ints(values) => write_ints(&values, dtype, shape),
        }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Ints(values) => values.len(),
        }
    }
}

/// `$value as $rust` for each element, under each of the types listed.
macro_rules! cast_to {
    ($values:expr, $dtype:expr, $shape:expr, $($case:ident => $rust:ty),*) => {
        match $dtype {
            $(DataType::$case => {
                Some(Tensor::from_vec($shape, $values.iter().map(|x| *x as $rust).collect()))
            })*
            _ => None,
        }
    };
}

fn write_floats(values: &[f64], dtype: DataType, shape: &[usize]) -> Result<Tensor, OpError> {
    let direct = cast_to!(values, dtype, shape, F64 => f64, F32 => f32, I64 => i64, I32 => i32,
        U64 => u64, U32 => u32);
    if let Some(tensor) = direct {
        return Ok(tensor);
    }
    Ok(match dtype {
        DataType::F16 => {
            Tensor::from_vec(shape, values.iter().map(|x| f16::from_f64(*x)).collect())
        }
        DataType::BF16 => {
            Tensor::from_vec(shape, values.iter().map(|x| bf16::from_f64(*x)).collect())
        }
        DataType::Bool => {
            Tensor::from_bools(shape, &values.iter().map(|x| *x != 0.0).collect::<Vec<_>>())
        }
        _ => {
            let truncated: Vec<i128> = values.iter().map(|x| *x as i128).collect();
            write_ints(&truncated, dtype, shape)?
        }
    })
}

fn write_ints(values: &[i128], dtype: DataType, shape: &[usize]) -> Result<Tensor, OpError> {
    let direct = cast_to!(values, dtype, shape, F64 => f64, F32 => f32, I64 => i64, I32 => i32,
        I16 => i16, I8 => i8, U64 => u64, U32 => u32, U16 => u16, U8 => u8);
    if let Some(tensor) = direct {
        return Ok(tensor);
    }
    Ok(match dtype {
        DataType::F16 | DataType::BF16 => {
            let floats: Vec<f64> = values.iter().map(|x| *x as f64).collect();
            write_floats(&floats, dtype, shape)?
        }
        DataType::Bool => {
            Tensor::from_bools(shape, &values.iter().map(|x| *x != 0).collect::<Vec<_>>())
        }
        DataType::I4 | DataType::U4 => {
            let nibble = |pair: &[i128]| {
                (pair[0] & 15) as u8 | pair.get(1).map_or(0, |high| ((high & 15) as u8) << 4)
            };
            let packed: Vec<u8> = values.chunks(2).map(nibble).collect();
            Tensor::new(dtype, shape.to_vec(), packed.into())?
        }
        _ => return Err(unsupported(dtype)),
    })
}

fn unsupported(dtype: DataType) -> OpError {
    OpError::unsupported(format!("elements of type {dtype} are not supported here"))
}
