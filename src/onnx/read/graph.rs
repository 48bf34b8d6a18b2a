//! Graphs, subgraphs and nodes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use planish_ir::text::builder::{GraphBuilder, NamedNode};
use planish_ir::{Graph, Node, Value};

use super::{Context, attribute, domain, metadata, tensor, types};
use crate::error::Problem;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// What a file says of values beside defining them.
pub(super) type Infos = HashMap<String, ValueInfoProto>;

/// The graph in `proto`; what it reads without defining it is left open.
pub(super) fn read(proto: GraphProto, context: &mut Context) -> Result<GraphBuilder, Problem> {
    refuse_what_cannot_be_kept(&proto)?;
    let mut graph = Graph::new(proto.name.unwrap_or_default());
    graph.doc = proto.doc_string.unwrap_or_default();
    graph.metadata = metadata(proto.metadata_props);
    let mut builder = GraphBuilder { graph };
    let outputs: Vec<String> = proto.output.iter().map(|o| o.name().to_owned()).collect();
    // An output's own type comes before that in `value_info`.
    let mut infos = infos(proto.output.into_iter().chain(proto.value_info));
    for input in proto.input {
        let value = types::value(input, context)?;
        check_name(&value.name, "a graph has an input")?;
        builder.add_input(value)?;
    }
    for initializer in proto.initializer {
        add_initializer(&mut builder, initializer, &mut infos, context)?;
    }
    add_nodes(&mut builder, proto.node, &mut infos, context)?;
    for name in &outputs {
        check_name(name, "a graph has an output")?;
        builder.add_output(name);
    }
    Ok(builder)
}

fn refuse_what_cannot_be_kept(proto: &GraphProto) -> Result<(), Problem> {
    let what = if !proto.sparse_initializer.is_empty() {
        "sparse initializers"
    } else if !proto.quantization_annotation.is_empty() {
        "quantisation annotations"
    } else {
        return Ok(());
    };
    Err(Problem::Unsupported { place: format!("the graph \"{}\"", proto.name()), what })
}

/// By name. The first entry of a name counts, but for a type that only a later one has.
pub(super) fn infos(protos: impl IntoIterator<Item = ValueInfoProto>) -> Infos {
    let mut infos = Infos::new();
    for proto in protos {
        match infos.entry(proto.name().to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(proto);
            }
            Entry::Occupied(mut entry) if entry.get().r#type.is_none() => {
                entry.get_mut().r#type = proto.r#type;
            }
            Entry::Occupied(_) => {}
        }
    }
    infos
}

/// The value `name` with what the file says of it.
pub(super) fn value(
    name: &str,
    infos: &mut Infos,
    context: &mut Context,
) -> Result<Value, Problem> {
    match infos.remove(name) {
        Some(info) => types::value(info, context),
        None => Ok(Value { name: name.to_owned(), ..Value::default() }),
    }
}

pub(super) fn check_name(name: &str, what: &'static str) -> Result<(), Problem> {
    if name.is_empty() { Err(Problem::Nameless(what)) } else { Ok(()) }
}

fn add_initializer(
    builder: &mut GraphBuilder,
    mut proto: TensorProto,
    infos: &mut Infos,
    context: &mut Context,
) -> Result<(), Problem> {
    let name = proto.name.take().unwrap_or_default();
    check_name(&name, "a graph has an initializer")?;
    let doc = proto.doc_string.take().unwrap_or_default();
    let props = metadata(std::mem::take(&mut proto.metadata_props));
    let value = value(&name, infos, context)?;
    let tensor = tensor::read(proto, &name, context)?;
    let id = builder.add_initializer(value, tensor)?;
    let value = builder.graph.value_mut(id);
    if value.doc.is_empty() {
        value.doc = doc;
    }
    if value.metadata.is_empty() {
        value.metadata = props;
    }
    Ok(())
}

/// Adds the nodes and the values that they write, in any order.
pub(super) fn add_nodes(
    builder: &mut GraphBuilder,
    protos: Vec<NodeProto>,
    infos: &mut Infos,
    context: &mut Context,
) -> Result<(), Problem> {
    let mut nodes = Vec::with_capacity(protos.len());
    for mut proto in protos {
        let attributes = std::mem::take(&mut proto.attribute);
        let named = node(proto)?;
        for output in named.outputs.iter().filter(|o| !o.is_empty()) {
            builder.add_result(value(output, infos, context)?, &named.node)?;
        }
        nodes.push((named, attributes));
    }
    for (mut named, attributes) in nodes {
        add_attributes(&mut named.node, attributes, context)?;
        builder.add_node(named)?;
    }
    Ok(())
}

fn add_attributes(
    node: &mut Node,
    protos: Vec<AttributeProto>,
    context: &mut Context,
) -> Result<(), Problem> {
    let called = node.describe();
    for proto in protos {
        let (name, value) = attribute::read(proto, &called, context)?;
        if node.attributes.insert(name.clone(), value).is_some() {
            let reason = "is given twice".to_owned();
            return Err(Problem::Attribute { node: called, attribute: name, reason });
        }
    }
    Ok(())
}

/// The node without its attributes.
fn node(proto: NodeProto) -> Result<NamedNode, Problem> {
    let node = Node {
        name: proto.name.unwrap_or_default(),
        op_type: proto.op_type.unwrap_or_default(),
        domain: domain(proto.domain),
        overload: proto.overload.unwrap_or_default(),
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(proto.metadata_props),
        ..Node::default()
    };
    if !proto.device_configurations.is_empty() {
        let what = "a multi-device configuration";
        return Err(Problem::Unsupported { place: node.describe(), what });
    }
    Ok(NamedNode { node, inputs: proto.input, outputs: proto.output })
}
