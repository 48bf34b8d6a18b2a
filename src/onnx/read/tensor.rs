//! Tensors.

use bytes::Bytes;
use planish_ir::{DataType, Tensor, TensorError};

use super::Context;
use crate::error::{Problem, TensorProblem};
use crate::proto::TensorProto;
use crate::proto::tensor_proto::DataLocation;

/// The tensor that `proto` says; `name` is what messages call it.
pub(super) fn read(
    proto: TensorProto,
    name: &str,
    context: &mut Context,
) -> Result<Tensor, Problem> {
    let failed = |problem| Problem::Tensor { tensor: name.to_owned(), problem };
    convert(proto, context).map_err(failed)
}

fn convert(proto: TensorProto, context: &mut Context) -> Result<Tensor, TensorProblem> {
    let code = proto.data_type();
    let dtype = DataType::from_onnx(code).ok_or(TensorProblem::UnknownType(code))?;
    if proto.segment.is_some() {
        return Err(TensorProblem::Segments);
    }
    let shape = shape(&proto.dims)?;
    let is_external = proto.data_location() == DataLocation::External;
    if dtype == DataType::String {
        if is_external {
            return Err(TensorProblem::ExternalStrings);
        }
        return Ok(Tensor::from_strings(shape, proto.string_data)?);
    }
    let data = if is_external {
        let needed = n_bytes(dtype, &shape)?;
        context.external.slice(&proto.external_data, needed)?
    } else {
        match &proto.raw_data {
            Some(raw) if !raw.is_empty() => raw.clone(),
            _ => typed_data(dtype, &proto)?,
        }
    };
    Ok(Tensor::new(dtype, shape, data)?)
}

fn shape(dims: &[i64]) -> Result<Vec<usize>, TensorProblem> {
    let size = |d: &i64| usize::try_from(*d).ok();
    let shape: Option<Vec<usize>> = dims.iter().map(size).collect();
    shape.ok_or_else(|| TensorProblem::NegativeSize(dims.to_vec()))
}

fn n_bytes(dtype: DataType, shape: &[usize]) -> Result<usize, TensorError> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let bytes = count.and_then(|n| dtype.n_bytes(n));
    bytes.ok_or_else(|| TensorError::TooLarge(shape.to_vec()))
}

/// The bytes of a tensor whose elements stand in one of the typed fields.
fn typed_data(dtype: DataType, proto: &TensorProto) -> Result<Bytes, TensorProblem> {
    use DataType::*;
    let bytes: Vec<u8> = match dtype {
        F32 | C64 => proto.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        F64 | C128 => proto.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        I64 => proto.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        U64 => proto.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        U32 => {
            let mut bytes = Vec::with_capacity(proto.uint64_data.len() * 4);
            for x in &proto.uint64_data {
                let narrow = u32::try_from(*x).map_err(|_| TensorProblem::Range(*x as i64))?;
                bytes.extend(narrow.to_le_bytes());
            }
            bytes
        }
        _ => narrow(dtype, &proto.int32_data)?,
    };
    Ok(bytes.into())
}

/// `int32_data` holds elements of up to 32 bits, the bit patterns of 8 and 16 bit floats, and
/// whole bytes of packed sub-byte elements.
fn narrow(dtype: DataType, values: &[i32]) -> Result<Vec<u8>, TensorProblem> {
    use DataType::*;
    let (range, width) = match dtype {
        I32 => (i32::MIN..=i32::MAX, 4),
        I16 => (i16::MIN.into()..=i16::MAX.into(), 2),
        U16 | F16 | BF16 => (0..=u16::MAX.into(), 2),
        I8 => (i8::MIN.into()..=i8::MAX.into(), 1),
        I4 | I2 => (i8::MIN.into()..=u8::MAX.into(), 1),
        Bool => (0..=1, 1),
        _ => (0..=u8::MAX.into(), 1),
    };
    let mut bytes = Vec::with_capacity(values.len() * width);
    for value in values {
        if !range.contains(value) {
            return Err(TensorProblem::Range((*value).into()));
        }
        bytes.extend(&value.to_le_bytes()[..width]);
    }
    Ok(bytes)
}
