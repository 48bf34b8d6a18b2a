//! Reshapes and transposes that undo each other.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::infer::Facts;

use crate::pass::{PassContext, PassError};

/// Cancels `Transpose` after `Transpose`, and `Reshape` (`Squeeze`, `Unsqueeze`, `Flatten`) back
/// to a shape that the value had before.
pub(super) fn cancel_reshapes(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let mut n_rewrites = 0;
    loop {
        let facts = context.infer(model)?;
        let n = sweep(&mut model.graph, &facts);
        n_rewrites += n;
        if n == 0 {
            return Ok(n_rewrites);
        }
    }
}

fn sweep(graph: &mut Graph, facts: &Facts) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) {
            continue;
        }
        let Some(output) = graph.node(id).output(0) else { continue };
        if graph.users(output).is_empty() && !graph.is_output(output) {
            continue;
        }
        if let Some(source) = same_shape_ancestor(graph, facts, id) {
            graph.replace_value(output, source);
            n_rewrites += 1;
        } else if let Some(merged) = merge_transposes(graph, id) {
            graph.replace_value(output, merged);
            n_rewrites += 1;
        }
    }
    graph.remove_dead();
    n_rewrites
}

fn is_reshape(node: &Node) -> bool {
    ["Reshape", "Squeeze", "Unsqueeze", "Flatten"].iter().any(|op| node.is(op))
}

/// The value further up a chain of reshapes that has the shape of this node's output.
fn same_shape_ancestor(graph: &Graph, facts: &Facts, id: NodeId) -> Option<ValueId> {
    let node = graph.node(id);
    if !is_reshape(node) {
        return None;
    }
    let wanted = facts.shape(node.output(0)?)?;
    let mut value = node.input(0)?;
    loop {
        if facts.shape(value)? == wanted {
            let output = node.output(0)?;
            // An output needs a node of its own to carry the name.
            let movable = graph.producer(value).is_some() && !graph.is_output(value);
            return (!graph.is_output(output) || movable).then_some(value);
        }
        let above = graph.producer_node(value).filter(|n| is_reshape(n))?;
        value = above.input(0)?;
    }
}

/// `Transpose(Transpose(x))` as one.
fn merge_transposes(graph: &mut Graph, id: NodeId) -> Option<ValueId> {
    let outer = graph.node(id).clone();
    let inner = graph.producer_node(outer.input(0)?)?.clone();
    if !outer.is("Transpose") || !inner.is("Transpose") {
        return None;
    }
    let (second, first) = (outer.ints("perm")?, inner.ints("perm")?);
    let perm: Option<Vec<i64>> =
        second.iter().map(|p| first.get(usize::try_from(*p).ok()?).copied()).collect();
    let perm = perm?;
    let source = inner.input(0)?;
    if perm.iter().enumerate().all(|(i, p)| i as i64 == *p) {
        return Some(source);
    }
    let hint = graph.value(outer.output(0)?).name.clone();
    Some(graph.add_op(&hint, Node::new("Transpose", vec![Some(source)]).with("perm", perm)))
}
