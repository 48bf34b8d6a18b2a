//! Types of values.

use bytes::Bytes;
use planish_ir::text::unknown_dim;
use planish_ir::{DataType, Dim, TensorType, Value, ValueType};
use prost::Message;

use super::{Context, metadata};
use crate::error::Problem;
use crate::proto::tensor_shape_proto::Dimension;
use crate::proto::tensor_shape_proto::dimension::Value as DimValue;
use crate::proto::{TypeProto, ValueInfoProto, type_proto};

/// The value that `info` describes.
pub(super) fn value(info: ValueInfoProto, context: &mut Context) -> Result<Value, Problem> {
    let name = info.name.unwrap_or_default();
    let ty = info.r#type.map_or(Ok(ValueType::Unknown), |ty| value_type(ty, &name, context))?;
    Ok(Value {
        declared: ty != ValueType::Unknown,
        name,
        ty,
        constant: None,
        doc: info.doc_string.unwrap_or_default(),
        metadata: metadata(info.metadata_props),
    })
}

fn value_type(proto: TypeProto, name: &str, context: &mut Context) -> Result<ValueType, Problem> {
    match proto.value {
        None => Ok(ValueType::Unknown),
        Some(type_proto::Value::TensorType(tensor)) => {
            let code = tensor.elem_type.unwrap_or_default();
            let dtype = DataType::from_onnx(code);
            if dtype.is_none() && code != 0 {
                let holder = format!("the value \"{name}\"");
                return Err(Problem::UnknownType { holder, code });
            }
            let mut dims =
                |dims: Vec<Dimension>| dims.into_iter().map(|d| dim(d, context)).collect();
            Ok(ValueType::Tensor(TensorType { dtype, shape: tensor.shape.map(|s| dims(s.dim)) }))
        }
        Some(_) => Ok(ValueType::Other(Bytes::from(proto.encode_to_vec()))),
    }
}

/// A size, an expression, or a dimension of which the file says nothing.
fn dim(proto: Dimension, context: &mut Context) -> Dim {
    match proto.value {
        Some(DimValue::DimValue(size)) if size >= 0 => Dim::from(size),
        Some(DimValue::DimParam(text)) if !text.trim().is_empty() => Dim::parse(&text),
        _ => {
            context.n_unknown_dims += 1;
            unknown_dim(context.n_unknown_dims - 1)
        }
    }
}
