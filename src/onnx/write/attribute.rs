//! Attributes of nodes and functions.

use planish_ir::text::names::Names;
use planish_ir::{Attribute, Graph};
use prost::Message;

use super::{Context, graph, tensor};
use crate::error::WriteError;
use crate::proto::AttributeProto;
use crate::proto::attribute_proto::AttributeType;

/// Where an attribute stands.
pub(super) struct Place<'a> {
    /// What messages call the node.
    pub(super) node: &'a str,
    /// Name of the attribute.
    pub(super) name: &'a str,
    /// The graph around it.
    pub(super) graph: &'a Graph,
    /// The names of that graph's values.
    pub(super) names: &'a Names,
}

/// The attribute as protobuf.
pub(super) fn write(
    value: &Attribute,
    place: Place,
    context: &mut Context,
) -> Result<AttributeProto, WriteError> {
    let mut proto = AttributeProto::default();
    let mut set_type = |kind: AttributeType| proto.r#type = Some(kind as i32);
    match value {
        Attribute::Float(_) => set_type(AttributeType::Float),
        Attribute::Int(_) => set_type(AttributeType::Int),
        Attribute::String(_) => set_type(AttributeType::String),
        Attribute::Tensor(_) => set_type(AttributeType::Tensor),
        Attribute::Graph(_) => set_type(AttributeType::Graph),
        Attribute::Floats(_) => set_type(AttributeType::Floats),
        Attribute::Ints(_) => set_type(AttributeType::Ints),
        Attribute::Strings(_) => set_type(AttributeType::Strings),
        Attribute::Tensors(_) => set_type(AttributeType::Tensors),
        Attribute::Graphs(_) => set_type(AttributeType::Graphs),
        Attribute::Ref(_, code) => proto.r#type = Some(*code),
        Attribute::Other(_) => {}
    }
    let mut subgraph =
        |inner: &Graph| graph::write(inner, &place.names.nested(place.graph, inner), context);
    match value {
        Attribute::Float(value) => proto.f = Some(*value),
        Attribute::Int(value) => proto.i = Some(*value),
        Attribute::String(value) => proto.s = Some(value.clone()),
        Attribute::Tensor(value) => proto.t = Some(tensor::inline(value)),
        Attribute::Graph(value) => proto.g = Some(subgraph(value)?),
        Attribute::Floats(values) => proto.floats = values.clone(),
        Attribute::Ints(values) => proto.ints = values.clone(),
        Attribute::Strings(values) => proto.strings = values.clone(),
        Attribute::Tensors(values) => proto.tensors = values.iter().map(tensor::inline).collect(),
        Attribute::Graphs(values) => {
            proto.graphs = values.iter().map(subgraph).collect::<Result<_, _>>()?;
        }
        Attribute::Ref(reference, _) => proto.ref_attr_name = Some(reference.clone()),
        Attribute::Other(bytes) => {
            let fail = |source| WriteError::Attribute {
                node: place.node.to_owned(),
                attribute: place.name.to_owned(),
                source,
            };
            proto = AttributeProto::decode(bytes.clone()).map_err(fail)?;
        }
    }
    proto.name = Some(place.name.to_owned());
    Ok(proto)
}
