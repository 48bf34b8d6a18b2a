//! Linear layers.

use planish_ir::{Dim, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// Brings linear layers to `MatMul(x, W)`, `Add(product, bias)` on the activation's own rank:
/// `Gemm` between reshapes to two axes and back, and biases on the left.
pub(super) fn lift_linears(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let n_outer = lift_outer_products(model, context)?;
    let n_turned = turn_weights(&mut model.graph);
    let n_gemms = lift_gemms(model, context)?;
    Ok(n_outer + n_turned + n_gemms + move_biases_right(&mut model.graph))
}

/// x · Wᵀ with a transposed weight that nothing else reads → x · W, however large the weight is.
fn turn_weights(graph: &mut Graph) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        let Some(transposed) = node.input(1).filter(|_| node.is("MatMul")) else { continue };
        let turned = sole_transpose(graph, transposed);
        let Some((name, turned)) = turned else { continue };
        let turned = graph.add_constant(&name, turned);
        graph.replace_value(transposed, turned);
        n_rewrites += 1;
    }
    graph.remove_dead();
    n_rewrites
}

/// The content of `value`, if it is the transpose of a matrix that has no other user; and the
/// name of that matrix.
fn sole_transpose(graph: &Graph, value: ValueId) -> Option<(String, Tensor)> {
    let node = graph.producer_node(value).filter(|n| n.is("Transpose"))?;
    let weight = node.input(0).filter(|weight| graph.users(*weight).len() == 1)?;
    let name = graph.value(weight).name.clone();
    Some((name, transpose_2d(graph.constant(weight)?)?))
}

/// A product over one channel, as exporters write `inv_freq · positions`, is an elementwise one.
fn lift_outer_products(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { continue };
        let is_one = |value, axis| facts.get(value).dim(axis).and_then(|d| d.as_const()) == Some(1);
        let matrices = facts.get(a).rank() >= Some(2) && facts.get(b).rank() >= Some(2);
        if node.is("MatMul") && matrices && is_one(a, -1) && is_one(b, -2) {
            graph.node_mut(id).op_type = "Mul".into();
            n_rewrites += 1;
        }
    }
    Ok(n_rewrites)
}

/// bias + x · W → x · W + bias
fn move_biases_right(graph: &mut Graph) -> usize {
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        let (Some(left), Some(right)) = (node.input(0), node.input(1)) else { continue };
        let is_bias = graph.constant(left).is_some_and(|t| t.shape().len() == 1);
        let is_product = graph.producer_node(right).is_some_and(|n| n.is("MatMul"));
        if node.is("Add") && is_bias && is_product {
            graph.set_input(id, 0, Some(right));
            graph.set_input(id, 1, Some(left));
            n_rewrites += 1;
        }
    }
    n_rewrites
}

fn lift_gemms(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        if !graph.contains_node(id) || !graph.node(id).is("Gemm") {
            continue;
        }
        match lift_gemm(graph, &facts, id) {
            Ok(()) => n_rewrites += 1,
            Err(reason) => context.note(format!("{}: {reason}", graph.node(id).describe())),
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// `Gemm(x, W[, bias])` → `MatMul(x, W) [+ bias]`; where x is a reshape from more axes and every
/// user reshapes back, on the original axes.
fn lift_gemm(graph: &mut Graph, facts: &Facts, id: NodeId) -> Result<(), String> {
    let node = graph.node(id).clone();
    let (Some(x), Some(weight), Some(output)) = (node.input(0), node.input(1), node.output(0))
    else {
        return Err("an input is absent".into());
    };
    if node.float("alpha", 1.0) != 1.0
        || node.float("beta", 1.0) != 1.0
        || node.int("transA", 0) != 0
    {
        return Err("scaled by alpha or beta, or its left side transposed".into());
    }
    let bias = node.input(2).map(|bias| bias_vector(graph, facts, bias)).transpose()?;
    let weight = match node.int("transB", 0) {
        0 => weight,
        _ => transposed_weight(graph, weight)?,
    };
    let source = unflattened_source(graph, facts, x);
    let leading = leading_axes(graph, facts, x);
    let name = graph.value(output).name.clone();
    let mut product = graph.add_op(
        &name,
        Node::new("MatMul", vec![Some(source.unwrap_or(x)), Some(weight)])
            .with_name(node.name.clone()),
    );
    if let Some(bias) = bias {
        product = graph.add_op(&name, Node::new("Add", vec![Some(product), Some(bias)]));
    }
    match source {
        Some(_) => reconnect_users(graph, facts, output, leading, product),
        None => graph.replace_value(output, product),
    }
    Ok(())
}

/// The bias, which must be the same for every row, as a vector where it is constant.
fn bias_vector(graph: &mut Graph, facts: &Facts, bias: ValueId) -> Result<ValueId, String> {
    match facts.shape(bias) {
        Some([] | [_]) => return Ok(bias),
        Some([rows, _]) if rows.as_const() == Some(1) => {}
        shape => return Err(format!("its bias is no vector, but has shape {shape:?}")),
    }
    let Some(tensor) = graph.constant(bias) else { return Ok(bias) };
    let vector = tensor.reshaped(vec![tensor.n_elements()]).map_err(|error| error.to_string())?;
    let name = graph.value(bias).name.clone();
    Ok(graph.add_constant(&name, vector))
}

/// The transpose of a weight: as another initializer, or, where something else reads the weight
/// as well (an embedding), by a node.
fn transposed_weight(graph: &mut Graph, weight: ValueId) -> Result<ValueId, String> {
    let tensor = graph.constant(weight).ok_or("its right side is transposed and no constant")?;
    let name = graph.value(weight).name.clone();
    if graph.users(weight).len() > 1 {
        let node = Node::new("Transpose", vec![Some(weight)]).with("perm", vec![1, 0]);
        return Ok(graph.add_op(&format!("{name}/transposed"), node));
    }
    let transposed = transpose_2d(tensor).ok_or("its weight can't be transposed")?;
    Ok(graph.add_constant(&name, transposed))
}

/// x before its leading axes were flattened to one, on three axes: `[batch, sequence, channels]`.
fn unflattened_source(graph: &mut Graph, facts: &Facts, x: ValueId) -> Option<ValueId> {
    let node = graph.producer_node(x).filter(|node| node.is("Reshape"))?;
    let source = node.input(0)?;
    let (before, after) = (facts.shape(source)?, facts.shape(x)?);
    let ([batch, sequence, rest @ ..], [rows, channels]) = (before, after) else { return None };
    let n_rest = rest.iter().fold(Dim::from(1i64), |product, dim| product.mul(dim));
    if *rows != batch.mul(sequence) || *channels != n_rest {
        return None;
    }
    if rest.len() == 1 {
        return Some(source);
    }
    let target = graph.add_constant("merge_heads", int64s(&[0, 0, -1]));
    Some(graph.add_op("merged", Node::new("Reshape", vec![Some(source), Some(target)])))
}

/// Batch and sequence of what `x` was flattened from.
fn leading_axes(graph: &Graph, facts: &Facts, x: ValueId) -> Option<[Dim; 2]> {
    let shape = facts.shape(graph.producer_node(x)?.input(0)?)?;
    Some([shape.first()?.clone(), shape.get(1)?.clone()])
}

/// Lets the users of the flat `old` read the unflattened `product`: reshapes of it now start from
/// there, others get it flattened again.
fn reconnect_users(
    graph: &mut Graph,
    facts: &Facts,
    old: ValueId,
    leading: Option<[Dim; 2]>,
    product: ValueId,
) {
    for (user, index) in graph.users(old) {
        let node = graph.node(user);
        let restored = node.output(0).and_then(|v| facts.shape(v));
        let restores = node.is("Reshape")
            && index == 0
            && restored.is_some_and(|shape| {
                shape.len() == 3 && leading.as_ref().is_some_and(|l| shape[..2] == l[..])
            });
        if restores {
            let output = node.output(0).expect("its shape is known");
            graph.replace_value(output, product);
        }
    }
    if graph.users(old).iter().any(|(user, _)| !is_dead(graph, *user)) || graph.is_output(old) {
        let flat = graph
            .add_constant("flat_shape", Tensor::from_vec(&[2], vec![-1i64, channels(facts, old)]));
        let flattened =
            graph.add_op("flattened", Node::new("Reshape", vec![Some(product), Some(flat)]));
        graph.replace_value(old, flattened);
    }
}

fn is_dead(graph: &Graph, node: NodeId) -> bool {
    let unread = |v: &ValueId| graph.users(*v).is_empty() && !graph.is_output(*v);
    graph.node(node).outputs.iter().flatten().all(unread)
}

fn channels(facts: &Facts, value: ValueId) -> i64 {
    facts.get(value).dim(-1).and_then(|d| d.as_const()).unwrap_or(-1)
}

/// A 2-D tensor with its axes swapped, element sizes of whole bytes.
pub(super) fn transpose_2d(tensor: &Tensor) -> Option<Tensor> {
    let [rows, columns] = tensor.shape()[..] else { return None };
    let width = tensor.dtype().bits() / 8;
    if width == 0 || tensor.strings().is_some() {
        return None;
    }
    const TILE: usize = 64;
    let source = tensor.bytes();
    let mut data = vec![0u8; source.len()];
    for row0 in (0..rows).step_by(TILE) {
        for column0 in (0..columns).step_by(TILE) {
            for row in row0..rows.min(row0 + TILE) {
                for column in column0..columns.min(column0 + TILE) {
                    let from = (row * columns + column) * width;
                    let to = (column * rows + row) * width;
                    data[to..to + width].copy_from_slice(&source[from..from + width]);
                }
            }
        }
    }
    Tensor::new(tensor.dtype(), vec![columns, rows], data.into()).ok()
}
