//! Graphs, subgraphs and nodes.

use std::collections::HashSet;

use planish_ir::text::names::Names;
use planish_ir::{Graph, Node, Tensor, Value, ValueId};

use super::{Context, attribute, metadata, tensor, text, types};
use crate::error::WriteError;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// The graph as protobuf, its values called as `names` says.
pub(super) fn write(
    graph: &Graph,
    names: &Names,
    context: &mut Context,
) -> Result<GraphProto, WriteError> {
    let interface = |ids: &[ValueId]| -> Result<Vec<ValueInfoProto>, WriteError> {
        let info = |id: &ValueId| types::interface_info(graph.value(*id), names.get(graph, *id));
        ids.iter().map(info).collect()
    };
    let inputs: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    let mut initializers = Vec::new();
    for (id, data) in constants(graph) {
        let mut proto = initializer(data, context)?;
        proto.name = Some(names.get(graph, id).to_owned());
        let value = graph.value(id);
        if !value.declared && !inputs.contains(&id) {
            keep_notes(&mut proto, value);
        }
        initializers.push(proto);
    }
    Ok(GraphProto {
        node: nodes(graph, names, context)?,
        name: text(&graph.name),
        initializer: initializers,
        doc_string: text(&graph.doc),
        input: interface(&graph.inputs)?,
        output: interface(&graph.outputs)?,
        value_info: types::value_infos(graph, names, false, context.value_info)?,
        metadata_props: metadata(&graph.metadata),
        ..GraphProto::default()
    })
}

fn constants(graph: &Graph) -> impl Iterator<Item = (ValueId, &Tensor)> {
    graph.value_ids().filter_map(|id| Some((id, graph.value(id).constant.as_ref()?)))
}

fn initializer(data: &Tensor, context: &mut Context) -> Result<TensorProto, WriteError> {
    let place = context.data.place(data)?;
    Ok(match place {
        None => tensor::inline(data),
        Some(entries) => TensorProto {
            data_location: Some(DataLocation::External as i32),
            external_data: entries,
            ..tensor::header(data)
        },
    })
}

/// An initializer without an entry in `value_info` carries its doc string and metadata itself.
fn keep_notes(proto: &mut TensorProto, value: &Value) {
    proto.doc_string = text(&value.doc);
    proto.metadata_props = metadata(&value.metadata);
}

/// Nodes that define a function body's constants, since functions have no initializers.
pub(super) fn constants_as_nodes(graph: &Graph, names: &Names) -> Vec<NodeProto> {
    let node = |(id, data): (ValueId, &Tensor)| NodeProto {
        op_type: Some("Constant".to_owned()),
        output: vec![names.get(graph, id).to_owned()],
        attribute: vec![AttributeProto {
            name: Some("value".to_owned()),
            r#type: Some(AttributeType::Tensor as i32),
            t: Some(tensor::inline(data)),
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    };
    constants(graph).map(node).collect()
}

/// The nodes in topological order.
pub(super) fn nodes(
    graph: &Graph,
    names: &Names,
    context: &mut Context,
) -> Result<Vec<NodeProto>, WriteError> {
    let order = graph.topological_order()?;
    order.into_iter().map(|id| node(graph.node(id), graph, names, context)).collect()
}

fn node(
    node: &Node,
    graph: &Graph,
    names: &Names,
    context: &mut Context,
) -> Result<NodeProto, WriteError> {
    let list = |ids: &[Option<ValueId>]| -> Vec<String> {
        ids.iter().map(|id| id.map_or("", |id| names.get(graph, id)).to_owned()).collect()
    };
    let mut attributes = Vec::with_capacity(node.attributes.len());
    for (name, value) in &node.attributes {
        let place = attribute::Place { node: &node.describe(), name, graph, names };
        attributes.push(attribute::write(value, place, context)?);
    }
    Ok(NodeProto {
        input: list(&node.inputs),
        output: list(&node.outputs),
        name: text(&node.name),
        op_type: Some(node.op_type.clone()),
        domain: text(&node.domain),
        overload: text(&node.overload),
        attribute: attributes,
        doc_string: text(&node.doc),
        metadata_props: metadata(&node.metadata),
        ..NodeProto::default()
    })
}
