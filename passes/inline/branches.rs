//! Branches whose condition is settled.

use std::collections::HashMap;

use planish_ir::{Graph, Model, NodeId, ValueId};

use super::splice::replace_by_body;
use crate::pass::{PassContext, PassError};

/// Puts the chosen branch in the place of every `If` whose condition is a constant or follows
/// from sizes that are numbers, until there is none.
///
/// # Errors
/// If shapes contradict each other.
pub(crate) fn inline_branches(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let mut n_rewrites = 0;
    loop {
        if !model.graph.node_ids().any(|id| model.graph.node(id).is("If")) {
            return Ok(n_rewrites);
        }
        let facts = context.infer(model)?;
        let graph = &mut model.graph;
        let holds = |value: ValueId| {
            let tensor = facts.get(value).constant?;
            (tensor.n_elements() == 1).then(|| tensor.bytes().iter().any(|byte| *byte != 0))
        };
        let condition = |graph: &Graph, id: NodeId| {
            let node = graph.node(id);
            holds(node.input(0).filter(|_| node.is("If"))?)
        };
        let settled: Vec<(NodeId, bool)> =
            graph.node_ids().filter_map(|id| Some((id, condition(graph, id)?))).collect();
        if settled.is_empty() {
            return Ok(n_rewrites);
        }
        for (id, holds) in settled {
            take_branch(graph, id, holds).map_err(PassError::Other)?;
            n_rewrites += 1;
        }
        graph.remove_dead();
    }
}

/// Puts a branch of the `If` node `id` in its place.
fn take_branch(graph: &mut Graph, id: NodeId, holds: bool) -> Result<(), String> {
    let node = graph.node(id).clone();
    let name = if holds { "then_branch" } else { "else_branch" };
    let branch = node.attributes.get(name).and_then(|a| a.graphs().first());
    let branch = branch.ok_or_else(|| format!("{} has no {name}", node.describe()))?;
    let map: HashMap<ValueId, Option<ValueId>> =
        branch.captures.iter().map(|capture| (capture.inner, Some(capture.outer))).collect();
    replace_by_body(graph, id, branch, map, true, &|_| ())
        .map_err(|reason| format!("{}: {reason}", node.describe()))
}
