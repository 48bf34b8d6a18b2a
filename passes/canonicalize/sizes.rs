//! Sizes that inputs of the graph tell.

use planish_ir::{Dim, Graph, Model, Node, ValueId};
use planish_kernels::infer::Facts;

use super::constants::int64s;
use crate::pass::{PassContext, PassError};

/// Lets nodes that read the shape of a computed value read those of graph inputs, where shape
/// inference says that they have the same sizes: what a shape is read of must be computed for
/// that alone, and keys must be there before the mask that depends on their number.
pub(super) fn lift_sizes(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let graph = &mut model.graph;
    let mut n_rewrites = 0;
    for id in graph.node_ids().collect::<Vec<_>>() {
        let node = graph.node(id);
        let (Some(x), Some(shape)) = (node.input(0), node.output(0)) else { continue };
        if !node.is("Shape") || graph.producer(x).is_none() || graph.is_output(shape) {
            continue;
        }
        let dims = facts.get(shape).dims.unwrap_or_default();
        let parts: Option<Vec<Part>> = dims.iter().map(|dim| parts(graph, &facts, dim)).collect();
        let Some(parts) = parts.filter(|parts| !parts.is_empty()) else { continue };
        let pieces = parts.into_iter().map(|part| Some(size(graph, part))).collect::<Vec<_>>();
        let whole = match pieces[..] {
            [Some(only)] => only,
            _ => graph.add_op("sizes", Node::new("Concat", pieces).with("axis", 0)),
        };
        graph.replace_value(shape, whole);
        n_rewrites += 1;
    }
    graph.remove_dead();
    Ok(n_rewrites)
}

/// Where one size comes from.
enum Part {
    Number(i64),
    /// So many times the size of an input's axis.
    Axis(ValueId, i64, i64),
    /// All of these together.
    Sum(Vec<Part>),
}

/// Where a size is to be had, or the terms of it: tokens in the cache and new ones, where no input
/// has as many as both.
fn parts(graph: &Graph, facts: &Facts, dim: &Dim) -> Option<Part> {
    part(graph, facts, dim).or_else(|| {
        let terms = dim.summands();
        let several = terms.len() > 1;
        let terms: Option<Vec<Part>> = terms.iter().map(|dim| part(graph, facts, dim)).collect();
        terms.filter(|_| several).map(Part::Sum)
    })
}

/// Where a size is to be had; of the inputs those of integers first, as they never are caches.
fn part(graph: &Graph, facts: &Facts, dim: &Dim) -> Option<Part> {
    if let Some(number) = dim.as_const() {
        return Some(Part::Number(number));
    }
    let is_integer = |v: &ValueId| facts.get(*v).dtype.is_some_and(|dtype| dtype.is_integer());
    let axis = |v: &ValueId| {
        let shape = facts.shape(*v)?;
        shape.iter().enumerate().find_map(|(axis, size)| {
            let times = if size == dim { 1 } else { dim.div_exact(size)?.as_const()? };
            (size.as_const().is_none()).then_some(Part::Axis(*v, axis as i64, times))
        })
    };
    let mut integers = graph.inputs.iter().filter(|v| is_integer(v));
    let mut others = graph.inputs.iter().filter(|v| !is_integer(v));
    integers.find_map(axis).or_else(|| others.find_map(axis))
}

fn size(graph: &mut Graph, part: Part) -> ValueId {
    match part {
        Part::Number(number) => graph.add_constant("size", int64s(&[number])),
        Part::Sum(parts) => {
            let sizes: Vec<ValueId> = parts.into_iter().map(|part| size(graph, part)).collect();
            let sum = sizes
                .into_iter()
                .reduce(|a, b| graph.add_op("size", Node::new("Add", vec![Some(a), Some(b)])));
            sum.unwrap_or_else(|| graph.add_constant("size", int64s(&[0])))
        }
        Part::Axis(input, axis, times) => {
            let node = Node::new("Shape", vec![Some(input)]);
            let size = graph.add_op("size", node.with("start", axis).with("end", axis + 1));
            if times == 1 {
                return size;
            }
            let times = graph.add_constant("times", int64s(&[times]));
            graph.add_op("size", Node::new("Mul", vec![Some(size), Some(times)]))
        }
    }
}
