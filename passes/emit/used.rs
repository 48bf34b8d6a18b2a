//! What a model uses.

use std::collections::HashSet;

use planish_ir::{Graph, Model, Node, Tensor};
use planish_kernels::DOMAIN;

use super::EmitError;

/// All nodes of a graph and of its subgraphs.
pub(super) fn all_nodes(graph: &Graph) -> Vec<&Node> {
    let mut nodes = Vec::new();
    let mut open = vec![graph];
    while let Some(graph) = open.pop() {
        for node in graph.node_ids().map(|id| graph.node(id)) {
            open.extend(node.attributes.values().flat_map(|attribute| attribute.graphs()));
            nodes.push(node);
        }
    }
    nodes
}

/// Checks that nothing needs an operator of planish's own.
pub(super) fn check_no_own(model: &Model) -> Result<(), EmitError> {
    let own = all_nodes(&model.graph).into_iter().find(|node| node.domain == DOMAIN);
    let reason = || "it is an operator of planish's own".to_owned();
    own.map_or(Ok(()), |node| Err(EmitError::Refused { node: node.describe(), reason: reason() }))
}

/// Drops the imports of domains that no node and no function uses; ONNX's own stays.
pub(super) fn remove_unused_imports(model: &mut Model) {
    let bodies = model.functions.iter().map(|function| &function.body);
    let nodes = std::iter::once(&model.graph).chain(bodies).flat_map(all_nodes);
    let mut used: HashSet<String> = nodes.map(|node| node.domain.clone()).collect();
    used.extend(model.functions.iter().map(|function| function.domain.clone()));
    model.opset_imports.retain(|o| o.domain.is_empty() || used.contains(&o.domain));
}

/// A rank-1 INT64 constant.
pub(super) fn int64s(values: &[i64]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}
