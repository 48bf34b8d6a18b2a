//! Attributes of nodes and functions.

use bytes::Bytes;
use planish_ir::Attribute;
use prost::Message;

use super::{Context, graph, tensor};
use crate::error::Problem;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{AttributeProto, SparseTensorProto, TensorProto};

/// The name and value of an attribute of `node` (as messages call it).
pub(super) fn read(
    mut proto: AttributeProto,
    node: &str,
    context: &mut Context,
) -> Result<(String, Attribute), Problem> {
    let name = proto.name.take().unwrap_or_default();
    let fail = |reason: &str| Problem::Attribute {
        node: node.to_owned(),
        attribute: name.clone(),
        reason: reason.to_owned(),
    };
    let code = proto.r#type.unwrap_or_default();
    if let Some(reference) = proto.ref_attr_name.take().filter(|r| !r.is_empty()) {
        return Ok((name, Attribute::Ref(reference, code)));
    }
    let kind = AttributeType::try_from(code)
        .map_err(|_| fail(&format!("has type number {code}, which ONNX does not define")))?;
    let kind = if kind == AttributeType::Undefined { guess(&proto) } else { kind };
    let tensor_name = |t: &TensorProto| match t.name() {
        "" => format!("{name} of {node}"),
        given => given.to_owned(),
    };
    let value = match kind {
        AttributeType::Undefined => return Err(fail("has no type and no value")),
        AttributeType::Float => Attribute::Float(proto.f.unwrap_or_default()),
        AttributeType::Int => Attribute::Int(proto.i.unwrap_or_default()),
        AttributeType::String => Attribute::String(proto.s.unwrap_or_default()),
        AttributeType::Floats => Attribute::Floats(proto.floats),
        AttributeType::Ints => Attribute::Ints(proto.ints),
        AttributeType::Strings => Attribute::Strings(proto.strings),
        AttributeType::Tensor => {
            let tensor = proto.t.ok_or_else(|| fail("has no tensor"))?;
            let called = tensor_name(&tensor);
            Attribute::Tensor(tensor::read(tensor, &called, context)?)
        }
        AttributeType::Tensors => {
            let read = |t: TensorProto| {
                let called = tensor_name(&t);
                tensor::read(t, &called, context)
            };
            Attribute::Tensors(proto.tensors.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        AttributeType::Graph => {
            let inner = proto.g.ok_or_else(|| fail("has no graph"))?;
            Attribute::Graph(Box::new(graph::read(inner, context)?.finish_subgraph()))
        }
        AttributeType::Graphs => {
            let mut graphs = Vec::new();
            for inner in proto.graphs {
                graphs.push(graph::read(inner, context)?.finish_subgraph());
            }
            Attribute::Graphs(graphs)
        }
        AttributeType::SparseTensor
        | AttributeType::SparseTensors
        | AttributeType::TypeProto
        | AttributeType::TypeProtos => {
            let sparse = proto.sparse_tensor.iter().chain(&proto.sparse_tensors);
            if sparse.clone().any(is_external) {
                return Err(fail("is a sparse tensor in an external file, which can't be kept"));
            }
            Attribute::Other(Bytes::from(proto.encode_to_vec()))
        }
    };
    Ok((name, value))
}

/// The type of an attribute in a file of ONNX's first version, which did not write it.
fn guess(proto: &AttributeProto) -> AttributeType {
    let fields = [
        (proto.f.is_some(), AttributeType::Float),
        (proto.i.is_some(), AttributeType::Int),
        (proto.s.is_some(), AttributeType::String),
        (proto.t.is_some(), AttributeType::Tensor),
        (proto.g.is_some(), AttributeType::Graph),
        (!proto.floats.is_empty(), AttributeType::Floats),
        (!proto.ints.is_empty(), AttributeType::Ints),
        (!proto.strings.is_empty(), AttributeType::Strings),
        (!proto.tensors.is_empty(), AttributeType::Tensors),
        (!proto.graphs.is_empty(), AttributeType::Graphs),
    ];
    fields.iter().find(|(set, _)| *set).map_or(AttributeType::Undefined, |(_, kind)| *kind)
}

fn is_external(sparse: &SparseTensorProto) -> bool {
    let parts = sparse.values.iter().chain(&sparse.indices);
    parts.clone().any(|t| t.data_location() == DataLocation::External)
}
