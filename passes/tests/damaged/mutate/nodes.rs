//! Nodes and what is between them.

use planish_kernels::ops;
use planish_onnx::proto::attribute_proto::AttributeType;
use planish_onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};

use super::Random;

/// Operators that planish does not evaluate, or only reads past.
const OTHERS: [&str; 8] =
    ["If", "Loop", "Scan", "Constant", "Frobnicate", "Dropout", "QLinearMatMul", "Einsum"];

/// Changes one node, or adds or removes one.
pub fn change(graph: &mut GraphProto, random: &mut Random) {
    let values = values(graph);
    let index = random.below(graph.node.len());
    let Some(node) = graph.node.get_mut(index) else { return };
    match random.below(11) {
        0 | 1 => rename(node, random),
        2 | 3 => random.change_list(&mut node.input, |r| any(&values, r)),
        4 => {
            if let Some(input) = random.pick_mut(&mut node.input) {
                *input = any(&values, random);
            }
        }
        5 => {
            let (a, b) = (random.below(node.input.len()), random.below(node.input.len()));
            if !node.input.is_empty() {
                node.input.swap(a, b);
            }
        }
        6 => random.change_list(&mut node.output, |r| format!("new_{}", r.below(4))),
        7 => {
            graph.node.remove(index);
        }
        8 => double(graph, index, random),
        9 => wrap(graph, index),
        _ => random.change_list(&mut graph.output, |r| ValueInfoProto {
            name: Some(any(&values, r)),
            ..ValueInfoProto::default()
        }),
    }
}

/// Names of everything that a node may read.
fn values(graph: &GraphProto) -> Vec<String> {
    let inputs = graph.input.iter().map(|value| value.name().to_owned());
    let weights = graph.initializer.iter().map(|tensor| tensor.name().to_owned());
    let results = graph.node.iter().flat_map(|node| node.output.clone());
    inputs.chain(weights).chain(results).collect()
}

/// A value, or none.
fn any(values: &[String], random: &mut Random) -> String {
    if random.one_in(8) { String::new() } else { random.pick(values).cloned().unwrap_or_default() }
}

/// Makes another operator of it.
fn rename(node: &mut NodeProto, random: &mut Random) {
    let known: Vec<_> = ops::all().collect();
    let (domain, name) = match random.below(known.len() + OTHERS.len()) {
        i if i < known.len() => (known[i].domain, known[i].name),
        i => ("", OTHERS[i - known.len()]),
    };
    node.op_type = Some(name.to_owned());
    node.domain = Some(domain.to_owned());
}

/// Adds a copy of a node behind it, whose first output a later node reads.
fn double(graph: &mut GraphProto, index: usize, random: &mut Random) {
    let mut copy = graph.node[index].clone();
    for output in copy.output.iter_mut().filter(|name| !name.is_empty()) {
        output.push_str("_copy");
    }
    let output = copy.output.first().cloned();
    graph.node.insert(index + 1, copy);
    let later = graph.node[index + 2..].iter_mut().flat_map(|node| node.input.iter_mut());
    let mut later: Vec<_> = later.collect();
    if let (Some(output), Some(input)) = (output, random.pick_mut(&mut later)) {
        **input = output;
    }
}

/// Puts a node into both branches of an `If`, which take its inputs from outside.
fn wrap(graph: &mut GraphProto, index: usize) {
    let inner = graph.node[index].clone();
    let outputs = inner.output.iter().filter(|name| !name.is_empty());
    let info = |name: &String| ValueInfoProto {
        name: Some(format!("{name}_inside")),
        ..ValueInfoProto::default()
    };
    let mut branch = GraphProto {
        name: Some("branch".into()),
        output: outputs.map(info).collect(),
        ..GraphProto::default()
    };
    let mut node = inner.clone();
    for output in node.output.iter_mut().filter(|name| !name.is_empty()) {
        output.push_str("_inside");
    }
    branch.node.push(node);
    let attribute = |name: &str| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(branch.clone()),
        ..AttributeProto::default()
    };
    graph.node[index] = NodeProto {
        op_type: Some("If".to_owned()),
        input: inner.input.first().cloned().into_iter().collect(),
        output: inner.output,
        attribute: vec![attribute("then_branch"), attribute("else_branch")],
        ..NodeProto::default()
    };
}
