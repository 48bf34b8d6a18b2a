//! Old versions of operators, rewritten to the newest form.

use planish_ir::{Attribute, Graph, Model, NodeId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// The operator set version of canonical graphs.
pub const CANONICAL_OPSET: i64 = 23;

/// Attributes that became inputs: operator, attribute, position of the input, first version.
const MOVED: [(&str, &str, usize, i64); 12] = [
    ("Squeeze", "axes", 1, 13),
    ("Unsqueeze", "axes", 1, 13),
    ("Split", "split", 1, 13),
    ("ReduceSum", "axes", 1, 13),
    ("ReduceMean", "axes", 1, 18),
    ("ReduceMax", "axes", 1, 18),
    ("ReduceMin", "axes", 1, 18),
    ("ReduceProd", "axes", 1, 18),
    ("ReduceL1", "axes", 1, 18),
    ("ReduceL2", "axes", 1, 18),
    ("ReduceSumSquare", "axes", 1, 18),
    ("ReduceLogSumExp", "axes", 1, 18),
];

/// Operators whose old form means something else, and the version from which on it doesn't.
const CHANGED: [(&str, i64); 5] =
    [("Softmax", 13), ("LogSoftmax", 13), ("Clip", 11), ("Slice", 10), ("Pad", 11)];
/// The first version in which `Softmax` runs over one axis, and not over all from there on.
const SOFTMAX_OVER_ONE_AXIS: i64 = 13;

/// Raises ONNX's own operator set to [`CANONICAL_OPSET`], moving attributes that became inputs.
/// A model with an operator whose meaning changed in between is left at its version.
pub(crate) fn upgrade_opset(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let version = model.opset("").unwrap_or(1);
    if version >= CANONICAL_OPSET {
        return Ok(0);
    }
    let facts = context.infer(model)?;
    if let Some(node) = without_newer_form(&model.graph, Some(&facts), version) {
        context.note(format!("{node} of opset {version} has no newer form"));
        return Ok(0);
    }
    upgrade_graph(&mut model.graph, version);
    model.set_opset("", CANONICAL_OPSET);
    Ok(1)
}

/// A node, in graphs within as well, whose meaning changed since `version`.
fn without_newer_form(graph: &Graph, facts: Option<&Facts>, version: i64) -> Option<String> {
    graph.node_ids().find_map(|id| {
        let node = graph.node(id);
        let changed = |(op, since): &(&str, i64)| node.is(op) && version < *since;
        if CHANGED.iter().any(changed) && !is_over_last_axis(graph, facts, id) {
            return Some(node.describe());
        }
        let mut inner = node.attributes.values().flat_map(|attribute| attribute.graphs());
        inner.find_map(|graph| without_newer_form(graph, None, version))
    })
}

fn upgrade_graph(graph: &mut Graph, version: i64) {
    for id in graph.node_ids().collect::<Vec<NodeId>>() {
        for attribute in graph.node_mut(id).attributes.values_mut() {
            attribute.graphs_mut().iter_mut().for_each(|inner| upgrade_graph(inner, version));
        }
        upgrade_node(graph, id, version);
    }
}

/// An old `Softmax` or `LogSoftmax` from the last axis on, which means the same in any version.
fn is_over_last_axis(graph: &Graph, facts: Option<&Facts>, id: NodeId) -> bool {
    let node = graph.node(id);
    let rank = node.output(0).and_then(|v| facts?.get(v).rank());
    let axis = node.int("axis", 1);
    let is_last = axis == -1 || rank.is_some_and(|rank| axis == rank as i64 - 1);
    (node.is("Softmax") || node.is("LogSoftmax")) && is_last
}

fn upgrade_node(graph: &mut Graph, id: NodeId, version: i64) {
    let node = graph.node(id);
    let is_softmax = node.is("Softmax") || node.is("LogSoftmax");
    if is_softmax && version < SOFTMAX_OVER_ONE_AXIS {
        graph.node_mut(id).attributes.insert("axis".into(), Attribute::Int(-1));
        return;
    }
    for (op, attribute, position, since) in MOVED {
        if !node.is(op) || version >= since {
            continue;
        }
        let Some(Attribute::Ints(values)) = graph.node_mut(id).attributes.remove(attribute) else {
            break;
        };
        let input = graph.add_constant(attribute, int64s(&values));
        graph.set_input(id, position, Some(input));
        break;
    }
    let node = graph.node(id);
    // From opset 18 on, a Split into equal parts must say how many there are.
    if node.is("Split") && version < 18 && node.input(1).is_none() {
        let n_outputs = node.outputs.len() as i64;
        graph.node_mut(id).attributes.insert("num_outputs".into(), Attribute::Int(n_outputs));
    }
}
