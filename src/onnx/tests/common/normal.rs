//! A normal form of ONNX's protobuf, to compare files that say the same in different words.

use std::collections::HashSet;

use planish_ir::Dim;
use planish_onnx::proto::tensor_shape_proto::dimension::Value as DimValue;
use planish_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, type_proto,
};

/// Sorts what has no order, spells sizes one way, and drops what is documented to be dropped.
pub fn normalise(model: &mut ModelProto) {
    for import in &mut model.opset_import {
        import.domain = Some(domain(import.domain.take()).unwrap_or_default());
    }
    for text in [
        &mut model.producer_name,
        &mut model.producer_version,
        &mut model.domain,
        &mut model.doc_string,
    ] {
        drop_empty(text);
    }
    model.model_version = model.model_version.filter(|v| *v != 0);
    graph(model.graph.as_mut().unwrap());
    for function in &mut model.functions {
        function.node.iter_mut().for_each(node);
        function.attribute_proto.iter_mut().for_each(attribute);
    }
}

fn domain(name: Option<String>) -> Option<String> {
    name.filter(|n| !n.is_empty() && n != "ai.onnx")
}

fn drop_empty(text: &mut Option<String>) {
    *text = text.take().filter(|t| !t.is_empty());
}

fn graph(graph: &mut GraphProto) {
    drop_empty(&mut graph.name);
    drop_empty(&mut graph.doc_string);
    graph.node.iter_mut().for_each(node);
    let mut defined: HashSet<String> = graph.node.iter().flat_map(|n| n.output.clone()).collect();
    defined.extend(graph.initializer.iter().map(|t| t.name().to_owned()));
    let interface: HashSet<&str> =
        graph.input.iter().chain(&graph.output).map(ValueInfoProto::name).collect();
    graph.value_info.retain(|i| defined.contains(i.name()) && !interface.contains(i.name()));
    graph.value_info.sort_by(|a, b| a.name().cmp(b.name()));
    graph.initializer.sort_by(|a, b| a.name().cmp(b.name()));
    for info in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        drop_empty(&mut info.doc_string);
        info.r#type.iter_mut().for_each(dims);
    }
    for tensor in &mut graph.initializer {
        drop_empty(&mut tensor.doc_string);
        // Where the data lies may change; what it is, `describe` compares.
        (tensor.data_location, tensor.raw_data) = (None, None);
        tensor.external_data.clear();
    }
}

fn dims(ty: &mut TypeProto) {
    ty.denotation = None;
    let Some(type_proto::Value::TensorType(tensor)) = &mut ty.value else { return };
    for dim in tensor.shape.iter_mut().flat_map(|s| &mut s.dim) {
        dim.denotation = None;
        if let Some(DimValue::DimParam(text)) = &dim.value {
            let parsed = Dim::parse(text);
            dim.value = Some(match parsed.as_const() {
                Some(size) => DimValue::DimValue(size),
                None => DimValue::DimParam(parsed.to_string()),
            });
        }
    }
}

fn node(node: &mut NodeProto) {
    node.domain = domain(node.domain.take());
    for text in [&mut node.name, &mut node.doc_string, &mut node.overload] {
        drop_empty(text);
    }
    node.attribute.iter_mut().for_each(attribute);
    node.attribute.sort_by(|a, b| a.name().cmp(b.name()));
}

fn attribute(attribute: &mut AttributeProto) {
    attribute.doc_string = None;
    for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
        (tensor.name, tensor.doc_string) = (None, None);
        tensor.data_location = None;
    }
    attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(graph);
}
