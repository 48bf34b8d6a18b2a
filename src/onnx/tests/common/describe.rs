//! Everything that a model says, as lines to compare.

use std::hash::{DefaultHasher, Hash, Hasher};

use planish_ir::{Attribute, Graph, Model, Node, Tensor, ValueId};

/// One line for every fact of the model; tensors' bytes are hashed.
pub fn describe(model: &Model) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {:?} {:?} {:?} {:?} {} {:?} {:?}",
        model.ir_version,
        model.opset_imports,
        model.producer_name,
        model.producer_version,
        model.domain,
        model.model_version,
        model.doc,
        model.metadata
    )];
    graph(&model.graph, "", &mut lines);
    for function in &model.functions {
        lines.push(format!(
            "function {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            function.name,
            function.domain,
            function.overload,
            function.attributes,
            function.opset_imports,
            function.doc,
            function.metadata
        ));
        for (name, value) in &function.attribute_defaults {
            attribute(name, value, "  ", &mut lines);
        }
        graph(&function.body, "  ", &mut lines);
    }
    lines
}

/// Fails at the first line in which the models differ.
pub fn assert_same(a: &Model, b: &Model) {
    let (a, b) = (describe(a), describe(b));
    for (left, right) in a.iter().zip(&b) {
        assert_eq!(left, right);
    }
    assert_eq!(a.len(), b.len());
}

fn graph(graph: &Graph, indent: &str, lines: &mut Vec<String>) {
    let names = |ids: &[ValueId]| -> Vec<String> {
        ids.iter().map(|id| graph.value(*id).name.clone()).collect()
    };
    lines.push(format!(
        "{indent}graph {:?} {:?} {:?} {:?} => {:?}, captures {:?}",
        graph.name,
        graph.doc,
        graph.metadata,
        names(&graph.inputs),
        names(&graph.outputs),
        graph.captures,
    ));
    for id in graph.value_ids() {
        let value = graph.value(id);
        lines.push(format!(
            "{indent}value {} {:?} {:?} {:?} {:?} declared {} {}",
            id.index(),
            value.name,
            value.ty,
            value.doc,
            value.metadata,
            value.declared,
            value.constant.as_ref().map(tensor).unwrap_or_default()
        ));
    }
    for id in graph.node_ids() {
        node(graph, graph.node(id), indent, lines);
    }
}

fn node(graph: &Graph, node: &Node, indent: &str, lines: &mut Vec<String>) {
    let names = |ids: &[Option<ValueId>]| -> Vec<String> {
        ids.iter().map(|id| id.map_or(String::new(), |id| graph.value(id).name.clone())).collect()
    };
    lines.push(format!(
        "{indent}node {:?} {:?} {:?} {:?} {:?} -> {:?} {:?} {:?}",
        node.name,
        node.domain,
        node.op_type,
        node.overload,
        names(&node.inputs),
        names(&node.outputs),
        node.doc,
        node.metadata
    ));
    for (name, value) in &node.attributes {
        attribute(name, value, &format!("{indent}  "), lines);
    }
}

fn attribute(name: &str, value: &Attribute, indent: &str, lines: &mut Vec<String>) {
    match value {
        Attribute::Tensor(t) => lines.push(format!("{indent}{name} {}", tensor(t))),
        Attribute::Tensors(ts) => {
            let all: Vec<String> = ts.iter().map(tensor).collect();
            lines.push(format!("{indent}{name} tensors {all:?}"));
        }
        Attribute::Graph(_) | Attribute::Graphs(_) => {
            lines.push(format!("{indent}{name} graphs"));
            for inner in value.graphs() {
                graph(inner, &format!("{indent}  "), lines);
            }
        }
        other => lines.push(format!("{indent}{name} {other:?}")),
    }
}

fn tensor(tensor: &Tensor) -> String {
    let mut hasher = DefaultHasher::new();
    tensor.bytes().hash(&mut hasher);
    tensor.strings().hash(&mut hasher);
    format!("{} {:?} {:016x}", tensor.dtype(), tensor.shape(), hasher.finish())
}
