//! Products of heads that were merged into the batch.

use planish_ir::{Dim, Graph, Model, Node, ValueId};
use planish_kernels::infer::Facts;

use super::super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// Takes heads and batch apart: what is computed on `[batch · heads, rows, columns]`, between
/// reshapes from and to four axes, is computed on `[batch, heads, rows, columns]`.
pub(super) fn unmerge_heads(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) || !graph.node(id).is("Reshape") {
            continue;
        }
        let (Some(merged), Some(output)) = (graph.node(id).input(0), graph.node(id).output(0))
        else {
            continue;
        };
        let computed = graph.producer_node(merged).is_some_and(|node| !node.is("Reshape"));
        let Some(lead) = lead_of(graph, &facts, merged).filter(|_| computed) else { continue };
        let inner = facts.shape(merged).unwrap_or_default();
        let whole = [&lead[..], inner.get(1..).unwrap_or_default()].concat();
        if facts.shape(output) == Some(&whole[..]) {
            let apart = unmerged(graph, &facts, merged);
            graph.replace_value(output, apart);
            n_rewrites += 1;
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// Batch and heads of a value `[batch · heads, rows, columns]`, if it is computed from values that
/// had both on axes of their own.
fn lead_of(graph: &Graph, facts: &Facts, value: ValueId) -> Option<[Dim; 2]> {
    let shape = facts.shape(value).filter(|shape| shape.len() == 3)?;
    let node = graph.producer_node(value)?;
    let of = |index: usize| lead_of(graph, facts, node.input(index)?);
    match node.op_type.as_str() {
        _ if !node.domain.is_empty() => None,
        "Reshape" => {
            let [batch, heads, rest @ ..] = facts.shape(node.input(0)?)? else { return None };
            // Axes of one element may come in.
            let is_one = |dim: &&Dim| dim.as_const() != Some(1);
            let same = rest.iter().filter(is_one).eq(shape[1..].iter().filter(is_one));
            (same && batch.mul(heads) == shape[0]).then(|| [batch.clone(), heads.clone()])
        }
        "Transpose" if node.ints("perm") == Some(&[0, 2, 1]) => of(0),
        "Softmax" if matches!(node.int("axis", -1), -1 | 2) => of(0),
        "Mul" | "Div" if is_number(graph, node.input(1)?) => of(0),
        "MatMul" | "Add" => of(0).filter(|lead| of(1).as_ref() == Some(lead)),
        _ => None,
    }
}

fn is_number(graph: &Graph, value: ValueId) -> bool {
    graph.constant(value).is_some_and(|tensor| tensor.n_elements() == 1)
}

/// The value with batch and heads apart; [`lead_of`] found that there is one.
fn unmerged(graph: &mut Graph, facts: &Facts, value: ValueId) -> ValueId {
    let Some(node) = graph.producer_node(value).cloned() else { return value };
    let hint = graph.value(value).name.clone();
    let Some(first) = node.input(0) else { return value };
    if node.is("Reshape") {
        let shape = facts.shape(value).unwrap_or_default();
        if facts.get(first).rank() == Some(4) {
            return first;
        }
        let sizes = shape.iter().skip(1).map(|dim| dim.as_const().unwrap_or(-1));
        let target: Vec<i64> = [0, 0].into_iter().chain(sizes).collect();
        let target = graph.add_constant("heads_apart", int64s(&target));
        return graph.add_op(&hint, Node::new("Reshape", vec![Some(first), Some(target)]));
    }
    let mut apart =
        Node::new(node.op_type.clone(), node.inputs.clone()).with_name(node.name.clone());
    apart.inputs[0] = Some(unmerged(graph, facts, first));
    match node.op_type.as_str() {
        "Transpose" => apart = apart.with("perm", vec![0, 1, 3, 2]),
        "Softmax" => apart = apart.with("axis", -1),
        "MatMul" | "Add" => apart.inputs[1] = node.input(1).map(|v| unmerged(graph, facts, v)),
        _ => {}
    }
    graph.add_op(&hint, apart)
}
