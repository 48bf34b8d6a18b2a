//! Queries, keys and values that one linear layer computes, in whatever order its channels have.
//!
//! Exporters cut a fused projection by reshapes, transposes, slices and look-ups in ever new ways:
//! head by head (q, k and v of one head side by side), or with one key and value for several
//! queries. So these nodes are not matched: they are run on the numbers of the channels, which tells
//! the channels that each part consists of.

use std::collections::{HashMap, HashSet};

use planish_ir::{DataType, Dim, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::infer::Facts;
use planish_kernels::{OpNode, ops};

use super::CANONICAL_OPSET;
use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// Operators that move elements and do nothing else.
const MOVES: [&str; 11] = [
    "Reshape",
    "Transpose",
    "Slice",
    "Split",
    "Gather",
    "GatherND",
    "Squeeze",
    "Unsqueeze",
    "Expand",
    "Flatten",
    "Identity",
];
/// Sizes with which the nodes are run: sequences, and positions of each.
const SIZES: [i64; 2] = [2, 3];

/// Sorts the channels of fused projections, so that a `Split` gives queries, keys and values side by
/// side.
pub(super) fn lift_projections(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for projection in projections(graph, &facts) {
        let name = graph.value(projection.output).name.clone();
        match sort(graph, &facts, &projection) {
            Ok(()) => n_rewrites += 1,
            Err(reason) => context.note(format!("lift_projections at \"{name}\": {reason}")),
        }
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// A linear layer whose output is moved about before attentions read it.
struct Projection {
    product: NodeId,
    bias: Option<NodeId>,
    output: ValueId,
    /// What attentions read of it, `[batch, sequence, channels]`.
    parts: Vec<ValueId>,
}

fn projections(graph: &Graph, facts: &Facts) -> Vec<Projection> {
    let mut found: Vec<Projection> = Vec::new();
    for id in graph.node_ids().filter(|id| graph.node(*id).is("Attention")) {
        for index in 0..3 {
            let Some(part) = graph.node(id).input(index) else { continue };
            let part = before_rotary(graph, part);
            let Some(output) = moved_from(graph, facts, part) else { continue };
            match found.iter_mut().find(|projection| projection.output == output) {
                Some(projection) if projection.parts.contains(&part) => {}
                Some(projection) => projection.parts.push(part),
                None => {
                    if let Some((product, bias)) = linear(graph, output) {
                        found.push(Projection { product, bias, output, parts: vec![part] });
                    }
                }
            }
        }
    }
    found
}

fn before_rotary(graph: &Graph, value: ValueId) -> ValueId {
    let rotary = graph.producer_node(value).filter(|node| node.is("RotaryEmbedding"));
    rotary.and_then(|node| node.input(0)).unwrap_or(value)
}

/// The value on three axes that `part` was made of by moving elements, the nearest that something
/// else computes; not for plain parts of a `Split` of the last axis.
fn moved_from(graph: &Graph, facts: &Facts, part: ValueId) -> Option<ValueId> {
    if facts.get(part).rank() != Some(3) {
        return None;
    }
    let mut value = part;
    let mut n_moves = 0;
    while let Some((id, _)) = graph.producer(value).filter(|(id, _)| moves(graph.node(*id))) {
        value = graph.node(id).input(0)?;
        n_moves += 1;
    }
    let splits = graph.producer_node(part).is_some_and(|node| node.is("Split"));
    (n_moves > usize::from(splits) && facts.get(value).rank() == Some(3)).then_some(value)
}

fn moves(node: &Node) -> bool {
    MOVES.iter().any(|op| node.is(op))
}

/// The product and the sum with a bias that make `output`.
fn linear(graph: &Graph, output: ValueId) -> Option<(NodeId, Option<NodeId>)> {
    let (id, _) = graph.producer(output)?;
    let node = graph.node(id);
    let is_matrix =
        |value: Option<ValueId>| value.and_then(|v| graph.constant(v)).map(|t| t.shape().len());
    if node.is("MatMul") {
        return (is_matrix(node.input(1)) == Some(2)).then_some((id, None));
    }
    let (product, _) = graph.producer(node.input(0).filter(|_| node.is("Add"))?)?;
    let below = graph.node(product);
    let fits = is_matrix(node.input(1)) == Some(1)
        && below.is("MatMul")
        && is_matrix(below.input(1)) == Some(2)
        && graph.users(node.input(0)?).len() == 1;
    fits.then_some((product, Some(id)))
}

fn sort(graph: &mut Graph, facts: &Facts, projection: &Projection) -> Result<(), String> {
    check_readers(graph, projection)?;
    let runner = Runner::new(graph, facts, projection.output)?;
    let mut parts = Vec::new();
    for part in &projection.parts {
        let columns = runner.columns(*part)?;
        let (columns, repeats) = without_repeats(columns)?;
        parts.push(Part { value: *part, columns, repeats });
    }
    parts.sort_by_key(|part| part.columns.first().copied());
    let mut order: Vec<usize> = parts.iter().flat_map(|part| &part.columns).copied().collect();
    if !order.is_sorted() {
        // The parts interleave: queries come first, then keys, then values.
        let place = |part: &Part| projection.parts.iter().position(|p| *p == part.value);
        parts.sort_by_key(place);
        order = parts.iter().flat_map(|part| &part.columns).copied().collect();
    }
    let mut seen: Vec<usize> = order.clone();
    seen.sort_unstable();
    if !seen.into_iter().eq(0..runner.width) {
        return Err("attentions do not read each of its channels once".into());
    }
    let sorted = match order.is_sorted() {
        true => projection.output,
        false => permuted(graph, projection, &order)?,
    };
    let sizes: Vec<i64> = parts.iter().map(|part| part.columns.len() as i64).collect();
    let sizes = graph.add_constant("split", int64s(&sizes));
    let split = Node::new("Split", vec![Some(sorted), Some(sizes)]).with("axis", -1);
    let hint = format!("{}/part", graph.value(projection.output).name);
    let outputs = graph.add_op_n(&hint, split, parts.len());
    for (part, output) in parts.iter().zip(outputs) {
        let whole = repeated(graph, output, part.repeats);
        graph.replace_value(part.value, whole);
    }
    Ok(())
}

/// Channels of a projection that an attention reads.
struct Part {
    value: ValueId,
    columns: Vec<usize>,
    /// How often each head comes after itself: head size and count.
    repeats: Option<(usize, usize)>,
}

/// Everything that reads the projection leads to its parts, or reads sizes alone.
fn check_readers(graph: &Graph, projection: &Projection) -> Result<(), String> {
    let mut pending = vec![projection.output];
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop() {
        if projection.parts.contains(&value) || !seen.insert(value) {
            continue;
        }
        if graph.is_output(value) {
            return Err("it is an output of the graph".into());
        }
        for (reader, index) in graph.users(value) {
            let node = graph.node(reader);
            match moves(node) && index == 0 {
                true => pending.extend(node.outputs.iter().flatten()),
                false if node.is("Shape") => {}
                false => return Err(format!("{} reads it as well", node.describe())),
            }
        }
    }
    Ok(())
}

/// Runs nodes that move elements on the numbers of the elements.
struct Runner<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    source: ValueId,
    width: usize,
    binding: HashMap<String, i64>,
}

impl<'a> Runner<'a> {
    fn new(graph: &'a Graph, facts: &'a Facts, source: ValueId) -> Result<Self, String> {
        let shape = facts.shape(source).unwrap_or_default();
        let width = shape.last().and_then(Dim::as_usize).ok_or("its width is not known")?;
        let mut binding = HashMap::new();
        for (dim, size) in shape.iter().zip(SIZES) {
            match &dim.symbols()[..] {
                [symbol] if *dim == Dim::symbol(symbol) => {
                    binding.insert(symbol.to_string(), size);
                }
                _ => return Err(format!("its shape is {shape:?}")),
            }
        }
        Ok(Self { graph, facts, source, width, binding })
    }

    /// The channels of the source that the last axis of `part` consists of, the same at every
    /// position.
    fn columns(&self, part: ValueId) -> Result<Vec<usize>, String> {
        let name = || self.graph.value(part).name.clone();
        let numbers = self.value(part)?;
        let n_rows = (SIZES[0] * SIZES[1]) as usize;
        let values = numbers.to_i64_vec().map_err(|error| error.to_string())?;
        let n = values.len() / n_rows;
        let columns: Vec<usize> = values.iter().take(n).map(|v| *v as usize % self.width).collect();
        let expected =
            (0..n_rows).flat_map(|row| columns.iter().map(move |c| (row * self.width + c) as i64));
        if n == 0 || !expected.eq(values.iter().copied()) {
            return Err(format!("\"{}\" takes other channels at other positions", name()));
        }
        Ok(columns)
    }

    /// The numbers of the elements that `value` consists of.
    fn value(&self, value: ValueId) -> Result<Tensor, String> {
        if value == self.source {
            let n = (SIZES[0] * SIZES[1]) as usize * self.width;
            let shape = [SIZES[0] as usize, SIZES[1] as usize, self.width];
            return Ok(Tensor::from_vec(&shape, (0..n as i64).collect()));
        }
        let (id, at) = self.graph.producer(value).ok_or("it starts elsewhere")?;
        let node = self.graph.node(id);
        let input = self.value(node.input(0).ok_or("an input is absent")?)?;
        let mut inputs = vec![Some(input)];
        for index in 1..node.inputs.len() {
            let known = match node.input(index) {
                Some(_) if node.is("Reshape") || node.is("Expand") => Some(self.shape_of(value)?),
                Some(other) => Some(self.constant(other)?),
                None => None,
            };
            inputs.push(known);
        }
        let op = ops::find("", &node.op_type).ok_or("an operator is not known")?;
        let view = OpNode { node, opset: CANONICAL_OPSET };
        let mut outputs = op.evaluate(&view, &inputs).map_err(|error| error.to_string())?;
        Ok(outputs.swap_remove(at))
    }

    fn constant(&self, value: ValueId) -> Result<Tensor, String> {
        let name = || self.graph.value(value).name.clone();
        self.facts.get(value).constant.ok_or_else(|| format!("\"{}\" is no constant", name()))
    }

    /// The inferred shape of a value, for the sizes that are tried.
    fn shape_of(&self, value: ValueId) -> Result<Tensor, String> {
        let size = |dim: &Dim| dim.eval(&|symbol| self.binding.get(symbol).copied());
        let shape = self.facts.shape(value).unwrap_or_default();
        let sizes: Option<Vec<i64>> = shape.iter().map(size).collect();
        let name = || self.graph.value(value).name.clone();
        let sizes = sizes.ok_or_else(|| format!("the shape of \"{}\" is not known", name()))?;
        Ok(int64s(&sizes))
    }
}

/// Columns without those of heads that stand for several; head size and how often each comes.
#[allow(clippy::type_complexity)]
fn without_repeats(columns: Vec<usize>) -> Result<(Vec<usize>, Option<(usize, usize)>), String> {
    let n_distinct = columns.iter().collect::<HashSet<_>>().len();
    if n_distinct == columns.len() {
        return Ok((columns, None));
    }
    // The head size is where the first column comes again.
    let again = columns.iter().skip(1).position(|c| *c == columns[0]).map(|at| at + 1);
    let size = again.ok_or("its heads do not repeat")?;
    let n_repeats = columns.len() / n_distinct.max(1);
    let kept: Vec<usize> = columns
        .chunks(size * n_repeats)
        .flat_map(|group| &group[..size.min(group.len())])
        .copied()
        .collect();
    let whole = kept.chunks(size).flat_map(|head| std::iter::repeat_n(head, n_repeats).flatten());
    if !whole.eq(&columns) {
        return Err("its heads do not repeat one after the other".into());
    }
    Ok((kept, Some((size, n_repeats))))
}

/// The projection with its channels in another order.
fn permuted(
    graph: &mut Graph,
    projection: &Projection,
    order: &[usize],
) -> Result<ValueId, String> {
    let product = graph.node(projection.product).clone();
    let weight = product.input(1).ok_or("its weight is absent")?;
    let sorted =
        sorted_columns(graph.constant(weight), order).ok_or("its weight can't be sorted")?;
    let name = graph.value(weight).name.clone();
    let weight = graph.add_constant(&name, sorted);
    let hint = graph.value(projection.output).name.clone();
    let node =
        Node::new("MatMul", vec![product.input(0), Some(weight)]).with_name(product.name.clone());
    let value = graph.add_op(&hint, node);
    let Some(bias) = projection.bias else { return Ok(value) };
    let add = graph.node(bias).clone();
    let vector = add.input(1).ok_or("its bias is absent")?;
    let sorted = sorted_columns(graph.constant(vector), order).ok_or("its bias can't be sorted")?;
    let name = graph.value(vector).name.clone();
    let vector = graph.add_constant(&name, sorted);
    let node = Node::new("Add", vec![Some(value), Some(vector)]).with_name(add.name.clone());
    Ok(graph.add_op(&hint, node))
}

/// A tensor with the elements of its last axis in another order.
fn sorted_columns(tensor: Option<&Tensor>, order: &[usize]) -> Option<Tensor> {
    let tensor = tensor?;
    let width = tensor.dtype().bits() / 8;
    if width == 0
        || tensor.dtype() == DataType::String
        || tensor.shape().last() != Some(&order.len())
    {
        return None;
    }
    let source = tensor.bytes();
    let mut data = Vec::with_capacity(source.len());
    for row in source.chunks(width * order.len()) {
        for column in order {
            data.extend_from_slice(&row[column * width..(column + 1) * width]);
        }
    }
    Tensor::new(tensor.dtype(), tensor.shape().to_vec(), data.into()).ok()
}

/// Each head of `[batch, sequence, heads · size]` as often as it is wanted.
fn repeated(graph: &mut Graph, value: ValueId, repeats: Option<(usize, usize)>) -> ValueId {
    let Some((size, count)) = repeats else { return value };
    let reshape = |graph: &mut Graph, value, op: &str, target: &[i64]| {
        let target = graph.add_constant("shape", int64s(target));
        graph.add_op("heads", Node::new(op, vec![Some(value), Some(target)]))
    };
    let size = size as i64;
    let heads = reshape(graph, value, "Reshape", &[0, 0, -1, 1, size]);
    let heads = reshape(graph, heads, "Expand", &[1, 1, 1, count as i64, 1]);
    reshape(graph, heads, "Reshape", &[0, 0, -1])
}
