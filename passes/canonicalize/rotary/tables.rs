//! Tables of cosines and sines.

use std::collections::{BTreeMap, BTreeSet};

use planish_ir::{DataType, Dim, Graph, Node, Tensor, ValueId};
use planish_kernels::infer::Facts;

use super::Order;
use crate::canonicalize::CANONICAL_OPSET;
use crate::canonicalize::constants::int64s;
use crate::interpret::Interpreter;
use crate::rule::Rewriter;

/// The axis of `x`, four axes, where `table` has size 1: 1 for heads before the sequence, 2 for
/// heads behind it.
pub(super) fn head_axis(rewriter: &Rewriter, table: ValueId, x: ValueId) -> Result<usize, String> {
    let shape = rewriter.facts.get(table).shape.unwrap_or_default();
    let heads = rewriter.facts.get(x).shape.unwrap_or_default();
    let fits = |axis: usize| {
        heads.len() == 4
            && shape.len() == 4
            && shape[axis].as_const() == Some(1)
            && shape[3] == heads[3]
            && shape[3 - axis] == heads[3 - axis]
    };
    [1, 2].into_iter().find(|axis| fits(*axis)).ok_or_else(|| {
        let name = rewriter.name(table);
        format!("the table \"{name}\" has shape {shape:?} for heads {heads:?}")
    })
}

/// The part `[batch, sequence, d/2]` that a table of angles `[batch, 1, sequence, d]` or `[batch,
/// sequence, 1, d]` consists of: its halves, or the elements of each pair, are equal.
pub(super) fn half_table(
    rewriter: &mut Rewriter,
    table: ValueId,
    x: ValueId,
    order: Order,
) -> Result<ValueId, String> {
    let axis = head_axis(rewriter, table, x)?;
    let shape = rewriter.facts.get(table).shape.unwrap_or_default();
    // The head axis is mostly put in by an Unsqueeze (or Reshape): the half is taken below it.
    let below = rewriter.graph.producer_node(table).and_then(|node| node.input(0));
    let below = below.filter(|below| {
        let inner = rewriter.facts.get(*below).shape.unwrap_or_default();
        inner.len() == 3
            && [&inner[0], &inner[1], &inner[2]] == [&shape[0], &shape[3 - axis], &shape[3]]
    });
    if order == Order::Halves
        && let Some(half) = below.and_then(|below| half_of(rewriter, below))
    {
        return Ok(half);
    }
    check_computed(rewriter, table, order)?;
    let name = rewriter.name(table);
    let below = below.unwrap_or_else(|| {
        let axes = rewriter.constant("axes", int64s(&[axis as i64]));
        rewriter.graph.add_op(&name, Node::new("Squeeze", vec![Some(table), Some(axes)]))
    });
    let width = shape[3].as_const().ok_or("the width of its table is not known")?;
    let (end, step) = if order == Order::Halves { (width / 2, 1) } else { (width, 2) };
    let bounds = [0, end, -1, step].map(|n| Some(rewriter.constant("bound", int64s(&[n]))));
    let inputs = std::iter::once(Some(below)).chain(bounds).collect();
    Ok(rewriter.graph.add_op(&format!("{name}/half"), Node::new("Slice", inputs)))
}

/// Repeats tables `[1, sequence, d/2]`, which positions make that are the same for the whole
/// batch, for each sequence of it: the operator asks for that.
pub(super) fn repeat_tables(graph: &mut Graph, facts: &Facts) -> usize {
    let mut repeated: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let nodes = graph.node_ids().filter(|id| {
        let node = graph.node(*id);
        node.is("RotaryEmbedding") && node.input(3).is_none()
    });
    let mut n_rewrites = 0;
    for id in nodes.collect::<Vec<_>>() {
        let x = graph.node(id).input(0);
        let Some(batch) = x.and_then(|x| facts.get(x).dim(0).cloned()) else { continue };
        for index in [1, 2] {
            let Some(table) = graph.node(id).input(index) else { continue };
            let rows = facts.get(table).dim(0).and_then(|dim| dim.as_const());
            if rows != Some(1) || batch.as_const() == Some(1) || facts.get(table).rank() != Some(3)
            {
                continue;
            }
            let known = repeated.get(&table).copied();
            let Some(wide) = known.or_else(|| repeat_table(graph, facts, table, &batch)) else {
                continue;
            };
            repeated.insert(table, wide);
            graph.set_input(id, index, Some(wide));
            n_rewrites += 1;
        }
    }
    n_rewrites
}

/// `table` expanded to as many sequences as an input of the graph has.
fn repeat_table(graph: &mut Graph, facts: &Facts, table: ValueId, batch: &Dim) -> Option<ValueId> {
    let mut inputs = graph.inputs.iter().copied();
    let source = inputs.find(|input| facts.get(*input).dim(0) == Some(batch))?;
    let size = Node::new("Shape", vec![Some(source)]).with("start", 0).with("end", 1);
    let size = graph.add_op("batch_size", size);
    let ones = graph.add_constant("ones", int64s(&[1, 1]));
    let shape = Node::new("Concat", vec![Some(size), Some(ones)]).with("axis", 0);
    let shape = graph.add_op("table_shape", shape);
    let hint = format!("{}/repeated", graph.value(table).name);
    Some(graph.add_op(&hint, Node::new("Expand", vec![Some(table), Some(shape)])))
}

/// Computes a table for a few positions, to see that its halves, or the elements of its pairs,
/// are equal: there are many ways to repeat an element.
fn check_computed(rewriter: &Rewriter, table: ValueId, order: Order) -> Result<(), String> {
    let name = rewriter.name(table);
    let computed = sample(rewriter, table)
        .map_err(|reason| format!("the table \"{name}\" can't be tried: {reason}"))?;
    let values = computed.to_f32_vec().map_err(|error| error.to_string())?;
    let width = computed.shape().last().copied().unwrap_or(0).max(1);
    let is_repeated = |row: &[f32]| match order {
        Order::Halves => row[..width / 2] == row[width / 2..],
        Order::Pairs => row.chunks(2).all(|pair| pair.first() == pair.last()),
    };
    let varies = values.iter().any(|x| *x != values[0]);
    if width % 2 == 0 && varies && values.chunks(width).all(is_repeated) {
        return Ok(());
    }
    let what = if order == Order::Halves { "halves" } else { "pairs" };
    Err(format!("the {what} of the table \"{name}\" are not equal"))
}

/// Nodes at most in the part of a graph that computes a table.
const MAX_NODES: usize = 1000;

/// `value` for some positions; every size that is not known is 3, and so are the rows at least of a
/// table that is cut to as many tokens as there are.
fn sample(rewriter: &Rewriter, value: ValueId) -> Result<Tensor, String> {
    let mut inputs = BTreeMap::new();
    for leaf in leaves(rewriter, value)? {
        let fact = rewriter.facts.get(leaf);
        let size = |dim: &Dim| {
            let known = dim.eval(&|_| Some(3)).and_then(|n| usize::try_from(n).ok());
            known.unwrap_or(3)
        };
        let shape: Vec<usize> = fact.shape.iter().flatten().map(size).collect();
        let dtype = fact.dtype.unwrap_or(DataType::F32);
        let n: usize = shape.iter().product();
        let tensor = match dtype {
            DataType::I64 => Tensor::from_vec(&shape, (0..n as i64).map(|i| 1 + i % 2).collect()),
            _ => {
                let bytes = vec![0u8; dtype.n_bytes(n).unwrap_or(0)];
                Tensor::new(dtype, shape, bytes.into()).map_err(|error| error.to_string())?
            }
        };
        inputs.insert(leaf, tensor);
    }
    let opset = |domain: &str| if domain.is_empty() { CANONICAL_OPSET } else { 1 };
    Interpreter::new(rewriter.graph, &opset, inputs.into_iter().collect()).value(value)
}

/// The graph inputs that lead to `value`, if not too much is in between.
fn leaves(rewriter: &Rewriter, value: ValueId) -> Result<BTreeSet<ValueId>, String> {
    let graph = &*rewriter.graph;
    let (mut leaves, mut nodes, mut stack) = (BTreeSet::new(), BTreeSet::new(), vec![value]);
    while let Some(value) = stack.pop() {
        match graph.producer(value) {
            Some((id, _)) if nodes.insert(id) => {
                let node = graph.node(id);
                let right = node.input(1).filter(|_| node.is("MatMul") || node.is("Gemm"));
                if right.is_some_and(|v| graph.constant(v).is_some_and(|t| t.shape().len() == 2)) {
                    return Err("it follows from a linear layer".into());
                }
                stack.extend(graph.inputs_and_captures(id));
            }
            Some(_) => {}
            None if graph.constant(value).is_none() => {
                leaves.insert(value);
            }
            None => {}
        }
        if nodes.len() > MAX_NODES {
            return Err(format!("more than {MAX_NODES} nodes compute it"));
        }
    }
    Ok(leaves)
}

/// The first half of `value` along its last axis, if the second half is the same.
fn half_of(rewriter: &mut Rewriter, value: ValueId) -> Option<ValueId> {
    if let Some(tensor) = rewriter.graph.constant(value) {
        let half = equal_half(tensor)?;
        let name = rewriter.name(value);
        return Some(rewriter.constant(&name, half));
    }
    let node = rewriter.graph.producer_node(value)?.clone();
    let first = node.input(0)?;
    if node.is("Concat") && node.inputs.len() == 2 {
        let rank = rewriter.facts.get(value).rank()? as i64;
        let last = matches!(node.int("axis", 0), axis if axis == -1 || axis == rank - 1);
        return (last && node.input(1) == Some(first)).then_some(first);
    }
    let hint = format!("{}/half", rewriter.name(value));
    let is_unary = ["Cos", "Sin", "Cast"].iter().any(|op| node.is(op));
    let is_scaled = (node.is("Mul") || node.is("Div"))
        && node
            .input(1)
            .and_then(|v| rewriter.graph.constant(v))
            .is_some_and(|t| t.n_elements() == 1);
    if !is_unary && !is_scaled {
        return None;
    }
    let half = half_of(rewriter, first)?;
    let mut halved = Node::new(node.op_type.clone(), node.inputs.clone());
    halved.inputs[0] = Some(half);
    halved.attributes = node.attributes;
    let like = rewriter.facts.get(half);
    let result = rewriter.graph.add_op(&hint, halved);
    let dtype = rewriter.facts.get(value).dtype;
    rewriter.facts.set(result, planish_kernels::Fact::new(dtype, like.shape));
    Some(result)
}

fn equal_half(tensor: &Tensor) -> Option<Tensor> {
    let width = *tensor.shape().last()?;
    let values = tensor.to_f32_vec().ok()?;
    if width == 0 || width % 2 != 0 {
        return None;
    }
    let mut half = Vec::with_capacity(values.len() / 2);
    for row in values.chunks(width) {
        if row[..width / 2] != row[width / 2..] {
            return None;
        }
        half.extend_from_slice(&row[..width / 2]);
    }
    let mut shape = tensor.shape().to_vec();
    *shape.last_mut()? = width / 2;
    Some(Tensor::from_vec(&shape, half))
}
