//! Dense tensors over shared, immutable bytes.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;
use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::DataType;

/// A dense tensor, row-major, little-endian, cheap to clone. Sub-byte elements are packed along
/// the flat order, the first in the low bits, as ONNX's `raw_data` has them. The bytes may be a
/// view of a memory-mapped file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: DataType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug, PartialEq)]
enum Data {
    Raw(Bytes),
    Strings(Arc<[Bytes]>),
}

/// Why a tensor can't be made or read as asked.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum TensorError {
    #[error("a {dtype} tensor of shape {shape:?} needs {expected} bytes, but has {actual}")]
    Size { dtype: DataType, shape: Vec<usize>, expected: usize, actual: usize },
    #[error("the shape {0:?} has more elements than can be addressed")]
    TooLarge(Vec<usize>),
    #[error("a {actual} tensor was read as {wanted}")]
    Type { actual: DataType, wanted: &'static str },
}

impl Tensor {
    /// A tensor over raw little-endian bytes.
    ///
    /// # Errors
    /// If the number of bytes is not what dtype and shape need, or dtype is string.
    pub fn new(dtype: DataType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let n = checked_count(&shape).filter(|_| is_addressable(&shape));
        let expected = n.and_then(|n| dtype.n_bytes(n));
        let expected = expected.ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        if dtype == DataType::String {
            return Err(TensorError::Type { actual: dtype, wanted: "raw bytes" });
        }
        if data.len() != expected {
            return Err(TensorError::Size { dtype, shape, expected, actual: data.len() });
        }
        Ok(Self { dtype, shape, data: Data::Raw(data) })
    }

    /// A string tensor.
    ///
    /// # Errors
    /// If the count does not fit the shape.
    pub fn from_strings(shape: Vec<usize>, strings: Vec<Bytes>) -> Result<Self, TensorError> {
        let expected = checked_count(&shape).ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        if expected != strings.len() {
            let (dtype, actual) = (DataType::String, strings.len());
            return Err(TensorError::Size { dtype, shape, expected, actual });
        }
        Ok(Self { dtype: DataType::String, shape, data: Data::Strings(strings.into()) })
    }

    /// A tensor over the elements of `values`.
    ///
    /// # Panics
    /// If the count does not fit the shape: for shapes that the caller computed itself.
    pub fn from_vec<T: Element>(shape: &[usize], values: Vec<T>) -> Self {
        assert_eq!(checked_count(shape), Some(values.len()), "shape {shape:?}");
        let data = Bytes::from_owner(ElementBytes(values));
        Self { dtype: T::DTYPE, shape: shape.to_vec(), data: Data::Raw(data) }
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::from_vec(&[], vec![value])
    }

    /// A bool tensor.
    ///
    /// # Panics
    /// As [`Tensor::from_vec`].
    pub fn from_bools(shape: &[usize], values: &[bool]) -> Self {
        assert_eq!(checked_count(shape), Some(values.len()), "shape {shape:?}");
        let data = Bytes::from_owner(ElementBytes::<u8>(values.iter().map(|b| *b as u8).collect()));
        Self { dtype: DataType::Bool, shape: shape.to_vec(), data: Data::Raw(data) }
    }

    /// Element type.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Sizes of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The raw bytes; empty for string tensors.
    pub fn bytes(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        match &self.data {
            Data::Raw(bytes) => bytes,
            Data::Strings(_) => &EMPTY,
        }
    }

    /// The strings of a string tensor; `None` for the others.
    pub fn strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Raw(_) => None,
            Data::Strings(strings) => Some(strings),
        }
    }

    /// The same bytes under another shape of as many elements.
    ///
    /// # Errors
    /// If the counts differ.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Self, TensorError> {
        if checked_count(&shape) != Some(self.n_elements()) {
            let (dtype, actual) = (self.dtype, self.bytes().len());
            let expected = checked_count(&shape).unwrap_or(usize::MAX);
            return Err(TensorError::Size { dtype, shape, expected, actual });
        }
        Ok(Self { dtype: self.dtype, shape, data: self.data.clone() })
    }

    /// The elements without conversion; copies only if the bytes are not aligned for `T`.
    ///
    /// # Errors
    /// If the tensor's element type is not `T`.
    pub fn as_slice<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        let same_layout =
            self.dtype == T::DTYPE || (self.dtype == DataType::Bool && T::DTYPE == DataType::U8);
        if !same_layout {
            return Err(TensorError::Type { actual: self.dtype, wanted: T::DTYPE.name() });
        }
        Ok(match bytemuck::try_cast_slice(self.bytes()) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(self.bytes())),
        })
    }

    /// The elements converted to f32: floats of any width, integers, bools, unpacked 4-bit codes.
    ///
    /// # Errors
    /// For strings, complex and 8-bit floating-point elements.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, TensorError> {
        Ok(match self.dtype {
            DataType::F32 => self.as_slice::<f32>()?.into_owned(),
            DataType::F64 => self.as_slice::<f64>()?.iter().map(|x| *x as f32).collect(),
            DataType::F16 => widened(&self.as_slice::<f16>()?),
            DataType::BF16 => widened(&self.as_slice::<bf16>()?),
            _ => self.to_i64_vec()?.into_iter().map(|x| x as f32).collect(),
        })
    }

    /// The elements as f32, converted only if they are not.
    ///
    /// # Errors
    /// As [`Tensor::to_f32_vec`].
    pub fn as_f32(&self) -> Result<Cow<'_, [f32]>, TensorError> {
        match self.dtype {
            DataType::F32 => self.as_slice::<f32>(),
            _ => self.to_f32_vec().map(Cow::Owned),
        }
    }

    /// The elements converted to i64: integers, bools, unpacked 4-bit codes.
    ///
    /// # Errors
    /// For every other element type.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>, TensorError> {
        Ok(match self.dtype {
            DataType::I64 => self.as_slice::<i64>()?.into_owned(),
            DataType::I32 => self.as_slice::<i32>()?.iter().map(|x| *x as i64).collect(),
            DataType::I16 => self.as_slice::<i16>()?.iter().map(|x| *x as i64).collect(),
            DataType::I8 => self.as_slice::<i8>()?.iter().map(|x| *x as i64).collect(),
            DataType::U64 => self.as_slice::<u64>()?.iter().map(|x| *x as i64).collect(),
            DataType::U32 => self.as_slice::<u32>()?.iter().map(|x| *x as i64).collect(),
            DataType::U16 => self.as_slice::<u16>()?.iter().map(|x| *x as i64).collect(),
            DataType::U8 | DataType::Bool => self.bytes().iter().map(|x| *x as i64).collect(),
            DataType::I4 => (0..self.n_elements()).map(|i| self.nibble(i, true)).collect(),
            DataType::U4 => (0..self.n_elements()).map(|i| self.nibble(i, false)).collect(),
            actual => return Err(TensorError::Type { actual, wanted: "integers" }),
        })
    }

    /// The 4-bit element at flat index `i`.
    fn nibble(&self, i: usize, signed: bool) -> i64 {
        let code = (self.bytes()[i / 2] >> (4 * (i % 2))) & 0xF;
        if signed && code >= 8 { code as i64 - 16 } else { code as i64 }
    }

    /// An `INT4` tensor of the codes −8..7 in `codes`.
    ///
    /// # Panics
    /// As [`Tensor::from_vec`].
    pub fn from_int4_codes(shape: &[usize], codes: &[i8]) -> Self {
        assert_eq!(checked_count(shape), Some(codes.len()), "shape {shape:?}");
        let nibble = |code: i8| code as u8 & 0xF;
        let pack = |pair: &[i8]| nibble(pair[0]) | pair.get(1).map_or(0, |c| nibble(*c) << 4);
        let data: Vec<u8> = codes.chunks(2).map(pack).collect();
        Self { dtype: DataType::I4, shape: shape.to_vec(), data: Data::Raw(data.into()) }
    }
}

/// Rust types that are elements of tensors.
pub trait Element: Pod + Send + Sync {
    /// The element type that has this representation.
    const DTYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DataType = DataType::$dtype; })*
    };
}

elements! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}

/// Floats of 16 bits in 32, many at a time.
fn widened<T>(halves: &[T]) -> Vec<f32>
where
    [T]: HalfFloatSliceExt,
{
    let mut floats = vec![0.0; halves.len()];
    halves.convert_to_f32_slice(&mut floats);
    floats
}

/// Lets a vector of elements own the bytes of a tensor without a copy.
struct ElementBytes<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for ElementBytes<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Whether the axes that are not empty could be addressed without those that are: a tensor of no elements
/// has room for rows and columns that no memory holds.
fn is_addressable(shape: &[usize]) -> bool {
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
    n.is_some_and(|n| n <= isize::MAX as usize / 16)
}

fn checked_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_size_is_refused() {
        let error = Tensor::new(DataType::F32, vec![2, 2], Bytes::from_static(&[0; 12]));
        assert!(matches!(error, Err(TensorError::Size { expected: 16, actual: 12, .. })));
        let huge = Tensor::new(DataType::F32, vec![usize::MAX, 2], Bytes::new());
        assert!(matches!(huge, Err(TensorError::TooLarge(_))));
        let empty = Tensor::new(DataType::F32, vec![1 << 60, 0, 1 << 60], Bytes::new());
        assert!(matches!(empty, Err(TensorError::TooLarge(_))));
        assert!(Tensor::new(DataType::F32, vec![1 << 40, 0], Bytes::new()).is_ok());
    }

    #[test]
    fn int4_codes_survive_packing() {
        let codes = [-8i8, 7, -1, 0, 3];
        let tensor = Tensor::from_int4_codes(&[5], &codes);
        assert_eq!(tensor.bytes().len(), 3);
        assert_eq!(tensor.to_i64_vec().unwrap(), [-8, 7, -1, 0, 3]);
    }

    #[test]
    fn unaligned_bytes_are_read_by_copy() {
        let mut bytes = vec![0u8; 9];
        bytes[1..5].copy_from_slice(&1.5f32.to_le_bytes());
        bytes[5..9].copy_from_slice(&(-2.0f32).to_le_bytes());
        let data = Bytes::from(bytes).slice(1..9);
        let tensor = Tensor::new(DataType::F32, vec![2], data).unwrap();
        assert_eq!(tensor.as_slice::<f32>().unwrap().as_ref(), [1.5, -2.0]);
    }

    #[test]
    fn a_tensor_read_as_another_type_is_an_error() {
        assert!(Tensor::scalar(1i64).as_slice::<f32>().is_err());
        assert!(Tensor::scalar(1f32).to_i64_vec().is_err());
    }
}
