//! Nodes that return their input.

use planish_ir::{Attribute, Graph, Model, Node, ValueId};
use planish_kernels::infer::Facts;

use crate::pass::{PassContext, PassError};
use crate::pattern::as_number;

/// Removes nodes that change nothing: `Identity`, `Cast` to the same type, `Reshape`, `Expand`
/// and `Slice` to the same shape, `Transpose` by the identity, `Concat` with nothing,
/// `Dropout` outside of training, products with 1 and sums with 0.
pub(super) fn drop_no_ops(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let order = graph.topological_order().map_err(|e| PassError::Other(e.to_string()))?;
    let mut n_rewrites = 0;
    for id in order {
        let node = graph.node(id);
        let Some(output) = node.output(0) else { continue };
        if node.outputs.iter().skip(1).flatten().any(|v| !graph.users(*v).is_empty()) {
            continue;
        }
        let Some(source) = source_of_no_op(graph, &facts, node, output) else { continue };
        // An output that is an input or a weight needs the node to carry it over.
        if graph.is_output(output) && (graph.producer(source).is_none() || graph.is_output(source))
        {
            continue;
        }
        graph.replace_value(output, source);
        n_rewrites += 1;
    }
    n_rewrites += drop_empty_parts(graph, &facts);
    n_rewrites += drop_expands(graph, &facts);
    graph.remove_dead();
    Ok(n_rewrites)
}

/// The input that `node` returns unchanged, if it does.
fn source_of_no_op(graph: &Graph, facts: &Facts, node: &Node, output: ValueId) -> Option<ValueId> {
    if !node.domain.is_empty() {
        return None;
    }
    let input = node.input(0)?;
    let same_shape = || {
        let (a, b) = (facts.shape(input)?, facts.shape(output)?);
        (a == b).then_some(input)
    };
    match node.op_type.as_str() {
        "Identity" | "Dropout" => Some(input),
        "Cast" => {
            let same = facts.get(input).dtype? as i64 == node.int("to", 0);
            same.then_some(input)
        }
        "Reshape" | "Expand" | "Squeeze" | "Unsqueeze" | "Flatten" | "Tile" => same_shape(),
        "Slice" => {
            let forward = match node.input(4) {
                Some(steps) => facts.get(steps).ints()?.iter().all(|step| *step > 0),
                None => true,
            };
            if forward { same_shape() } else { None }
        }
        "Transpose" => {
            let perm = node.ints("perm")?;
            perm.iter().enumerate().all(|(i, p)| i as i64 == *p).then_some(input)
        }
        "Concat" => (node.inputs.len() == 1).then_some(input),
        "Mul" | "Div" => neutral(graph, facts, node, output, 1.0),
        "Add" | "Sub" => neutral(graph, facts, node, output, 0.0),
        "And" => neutral(graph, facts, node, output, 1.0),
        _ => None,
    }
}

/// The other operand of a sum, product or conjunction with its neutral element.
fn neutral(
    graph: &Graph,
    facts: &Facts,
    node: &Node,
    output: ValueId,
    element: f32,
) -> Option<ValueId> {
    let commutes = matches!(node.op_type.as_str(), "Mul" | "Add" | "And");
    let (a, b) = (node.input(0)?, node.input(1)?);
    let is_neutral = |value| uniform(graph, value) == Some(element);
    let kept = match (is_neutral(a), is_neutral(b)) {
        (_, true) => a,
        (true, _) if commutes => b,
        _ => return None,
    };
    (facts.shape(kept)? == facts.shape(output)?).then_some(kept)
}

/// The number that all elements of a value are: of a constant, or of what is filled with one.
fn uniform(graph: &Graph, value: ValueId) -> Option<f32> {
    if let Some(tensor) = graph.constant(value) {
        return as_number(tensor);
    }
    let node = graph.producer_node(value).filter(|node| node.is("ConstantOfShape"))?;
    match node.attributes.get("value") {
        Some(Attribute::Tensor(tensor)) => as_number(tensor),
        Some(_) => None,
        None => Some(0.0),
    }
}

/// Takes parts without elements out of `Concat` nodes that join others as well.
fn drop_empty_parts(graph: &mut Graph, facts: &Facts) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        if !node.is("Concat") {
            continue;
        }
        let is_empty =
            |v: ValueId| facts.shape(v).is_some_and(|s| s.iter().any(|d| d.as_const() == Some(0)));
        let kept: Vec<_> =
            node.inputs.iter().flatten().copied().filter(|v| !is_empty(*v)).collect();
        if kept.is_empty() || kept.len() == node.inputs.len() {
            continue;
        }
        let mut changed = graph.remove_node(id);
        let output = changed.output(0);
        changed.inputs = kept.iter().copied().map(Some).collect();
        graph.add_node(changed).expect("its outputs were just freed");
        if let ([only], Some(output)) = (&kept[..], output)
            && !graph.is_output(output)
        {
            graph.replace_value(output, *only);
        }
        n_rewrites += 1;
    }
    n_rewrites
}

/// Operators that broadcast their two operands anyway.
const BROADCASTING: [&str; 9] =
    ["Add", "Sub", "Mul", "Div", "And", "Or", "LessOrEqual", "Less", "Greater"];

/// Takes `Expand` nodes away from operands that would be broadcast to the same shape.
fn drop_expands(graph: &mut Graph, facts: &Facts) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        if !BROADCASTING.iter().any(|op| node.is(op)) {
            continue;
        }
        for index in 0..2 {
            let Some(source) = unexpanded(graph, facts, id, index) else { continue };
            graph.set_input(id, index, Some(source));
            n_rewrites += 1;
        }
    }
    n_rewrites
}

/// What the `Expand` at an operand starts from, if the result has the same shape without it.
fn unexpanded(
    graph: &Graph,
    facts: &Facts,
    id: planish_ir::NodeId,
    index: usize,
) -> Option<ValueId> {
    let node = graph.node(id);
    let expand = graph.producer_node(node.input(index)?).filter(|n| n.is("Expand"))?;
    let source = expand.input(0)?;
    let wanted = facts.shape(node.output(0)?)?;
    let (a, b) = (facts.shape(source)?, facts.shape(node.input(1 - index)?)?);
    let one = planish_ir::Dim::from(1i64);
    let from_end = |shape: &[planish_ir::Dim], axis: usize| {
        shape.len().checked_sub(axis + 1).map_or(one.clone(), |i| shape[i].clone())
    };
    let same = (0..wanted.len()).all(|axis| {
        let (a, b, w) = (from_end(a, axis), from_end(b, axis), from_end(wanted, axis));
        (a == w && (b == w || b == one)) || (b == w && a == one)
    });
    same.then_some(source)
}
