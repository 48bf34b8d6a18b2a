//! Types of values.

use std::collections::HashSet;

use planish_ir::text::is_unknown_dim;
use planish_ir::text::names::Names;
use planish_ir::{Dim, Graph, TensorType, Value, ValueId, ValueType};
use prost::Message;

use super::{ValueInfo, metadata, text};
use crate::error::WriteError;
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

/// The values that need an entry in `value_info`: those whose type is to be written, or that
/// have a doc string or metadata with no other place. `is_function` is for bodies of functions,
/// whose inputs and outputs have no types of their own.
pub(super) fn value_infos(
    graph: &Graph,
    names: &Names,
    is_function: bool,
    which: ValueInfo,
) -> Result<Vec<ValueInfoProto>, WriteError> {
    let mut elsewhere: HashSet<ValueId> = graph.captures.iter().map(|c| c.inner).collect();
    if !is_function {
        elsewhere.extend(graph.inputs.iter().chain(&graph.outputs));
    }
    let mut infos = Vec::new();
    for id in graph.value_ids().filter(|id| !elsewhere.contains(id)) {
        let value = graph.value(id);
        let is_known = value.ty != ValueType::Unknown && value.constant.is_none();
        let is_noted = has_notes(value) && value.constant.is_none();
        if value.declared || is_noted || (which == ValueInfo::All && is_known) {
            infos.push(value_info(value, names.get(graph, id), which)?);
        }
    }
    Ok(infos)
}

fn has_notes(value: &Value) -> bool {
    !value.doc.is_empty() || !value.metadata.is_empty()
}

/// The entry of one value under the name `name`.
pub(super) fn value_info(
    value: &Value,
    name: &str,
    which: ValueInfo,
) -> Result<ValueInfoProto, WriteError> {
    let is_written = value.declared || which == ValueInfo::All;
    let r#type = if is_written { type_proto(value)? } else { None };
    Ok(ValueInfoProto {
        name: Some(name.to_owned()),
        r#type,
        doc_string: text(&value.doc),
        metadata_props: metadata(&value.metadata),
    })
}

/// The type of an input or output, which is written however it came to be known.
pub(super) fn interface_info(value: &Value, name: &str) -> Result<ValueInfoProto, WriteError> {
    value_info(value, name, ValueInfo::All)
}

fn type_proto(value: &Value) -> Result<Option<TypeProto>, WriteError> {
    match &value.ty {
        ValueType::Unknown => Ok(None),
        ValueType::Tensor(tensor) => Ok(Some(tensor_type(tensor))),
        ValueType::Other(bytes) => {
            let fail = |source| WriteError::Type { value: value.name.clone(), source };
            TypeProto::decode(bytes.clone()).map(Some).map_err(fail)
        }
    }
}

fn tensor_type(tensor: &TensorType) -> TypeProto {
    let shape = |dims: &Vec<Dim>| TensorShapeProto { dim: dims.iter().map(dimension).collect() };
    let proto = type_proto::Tensor {
        elem_type: tensor.dtype.map(|d| d.to_onnx()),
        shape: tensor.shape.as_ref().map(shape),
    };
    TypeProto { denotation: None, value: Some(type_proto::Value::TensorType(proto)) }
}

fn dimension(dim: &Dim) -> Dimension {
    let value = match dim.as_const() {
        Some(size) if size >= 0 => Some(dimension::Value::DimValue(size)),
        Some(_) => None,
        None if is_unknown_dim(dim) => None,
        None => Some(dimension::Value::DimParam(dim.to_string())),
    };
    Dimension { denotation: None, value }
}
