//! Nodes that compute the same thing twice.

use std::collections::HashMap;

use planish_ir::{Attribute, Graph, Model, Node, ValueId};

use crate::pass::{PassContext, PassError};

/// Operators whose results differ from run to run.
const RANDOM: [&str; 6] = [
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
];
/// Initializers up to this size are compared by content.
const MAX_COMPARED: usize = 1024;

/// Merges nodes with the same operator, attributes and inputs, and small initializers with the
/// same content.
pub(super) fn merge_duplicates(model: &mut Model, _: &mut PassContext) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let mut n_rewrites = merge_constants(graph);
    let order = graph.topological_order().map_err(|e| PassError::Other(e.to_string()))?;
    let mut seen: HashMap<String, Vec<Option<ValueId>>> = HashMap::new();
    for id in order {
        let node = graph.node(id);
        let Some(key) = key_of(node) else { continue };
        let outputs = node.outputs.clone();
        if outputs.iter().flatten().any(|v| graph.is_output(*v)) {
            continue;
        }
        let Some(first) = seen.get(&key) else {
            seen.insert(key, outputs);
            continue;
        };
        for (output, first) in outputs.iter().zip(first.clone()) {
            if let (Some(output), Some(first)) = (output, first) {
                graph.replace_value(*output, first);
            }
        }
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// A text that two nodes share only if they compute the same; `None` for nodes that can't be
/// compared.
fn key_of(node: &Node) -> Option<String> {
    if RANDOM.contains(&node.op_type.as_str()) {
        return None;
    }
    let comparable = |a: &Attribute| {
        matches!(
            a,
            Attribute::Float(_)
                | Attribute::Int(_)
                | Attribute::String(_)
                | Attribute::Floats(_)
                | Attribute::Ints(_)
                | Attribute::Strings(_)
        )
    };
    if !node.attributes.values().all(comparable) {
        return None;
    }
    let present: Vec<bool> = node.outputs.iter().map(Option::is_some).collect();
    Some(format!(
        "{}.{}.{} {:?} {:?} {present:?}",
        node.domain, node.op_type, node.overload, node.inputs, node.attributes
    ))
}

fn merge_constants(graph: &mut Graph) -> usize {
    let mut seen: HashMap<(i32, Vec<usize>, Vec<u8>), ValueId> = HashMap::new();
    let mut n_rewrites = 0;
    for id in graph.value_ids().collect::<Vec<_>>() {
        let Some(tensor) = graph.constant(id) else { continue };
        if tensor.n_elements() > MAX_COMPARED || tensor.strings().is_some() || graph.is_output(id) {
            continue;
        }
        let key = (tensor.dtype().to_onnx(), tensor.shape().to_vec(), tensor.bytes().to_vec());
        match seen.get(&key) {
            Some(first) => {
                let first = *first;
                graph.replace_value(id, first);
                n_rewrites += 1;
            }
            None => {
                seen.insert(key, id);
            }
        }
    }
    n_rewrites
}
