//! Caches that are inputs and outputs of a graph.

use planish_ir::{DataType, Dim, Graph, Tensor, ValueId};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::Facts;

use super::DecoderError;

/// An input with the keys or values of the past, and the output with those of past and present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePair {
    /// The input.
    pub past: ValueId,
    /// The output.
    pub present: ValueId,
    /// Element type.
    pub dtype: DataType,
    /// Sizes of the input; `None` for the batch, and for the axis of positions.
    sizes: Vec<Option<usize>>,
    /// The axis of positions.
    axis: usize,
}

impl CachePair {
    /// All pairs of a graph, in the order of its inputs.
    ///
    /// # Errors
    /// If no output continues a cache, or its heads or head size are not known.
    pub(super) fn find_all(graph: &Graph, facts: &Facts) -> Result<Vec<Self>, DecoderError> {
        let is_cache = |v: &ValueId| {
            let fact = facts.get(*v);
            let is_float = fact.dtype.is_some_and(DataType::is_float);
            is_float && fact.rank() == Some(4) && !graph.users(*v).is_empty()
        };
        let inputs = graph.inputs.iter().copied().filter(is_cache);
        inputs.map(|past| Self::find(graph, facts, past)).collect()
    }

    fn find(graph: &Graph, facts: &Facts, past: ValueId) -> Result<Self, DecoderError> {
        let name = &graph.value(past).name;
        let link = follow(graph, past).or_else(|| namesake(graph, past));
        let link = link.ok_or_else(|| DecoderError::NoPresent(name.clone()))?;
        let (mine, theirs) = (facts.get(past), facts.get(link.present));
        let size = |axis: usize| {
            let known =
                |fact: &planish_kernels::Fact| fact.dim(axis as i64).and_then(Dim::as_usize);
            known(&mine).or_else(|| known(&theirs)).or_else(|| link.head_size.filter(|_| axis == 3))
        };
        let fixed = mine.dim(link.axis as i64).and_then(Dim::as_usize);
        if let Some(positions) = fixed {
            return Err(DecoderError::FixedCache { name: name.clone(), positions });
        }
        let mut sizes = vec![None; 4];
        for (axis, known) in sizes.iter_mut().enumerate().skip(1).filter(|(a, _)| *a != link.axis) {
            let unknown = || DecoderError::UnknownSize { what: "shape", name: name.clone() };
            *known = Some(size(axis).ok_or_else(unknown)?);
        }
        let dtype = mine.dtype.unwrap_or(DataType::F32);
        Ok(Self { past, present: link.present, dtype, sizes, axis: link.axis })
    }

    /// The cache of `batch` sequences without positions.
    pub fn empty(&self, batch: usize) -> Option<Tensor> {
        let size = |(axis, size): (usize, &Option<usize>)| match size {
            _ if axis == self.axis => 0,
            Some(size) => *size,
            None => batch,
        };
        let shape = self.sizes.iter().enumerate().map(size).collect();
        Tensor::new(self.dtype, shape, Default::default()).ok()
    }

    /// Positions in a cache.
    pub fn n_positions(&self, cache: &Tensor) -> usize {
        cache.shape().get(self.axis).copied().unwrap_or(0)
    }
}

/// How an output continues a cache.
struct Link {
    present: ValueId,
    /// The axis of positions.
    axis: usize,
    /// The head size, if the node tells.
    head_size: Option<usize>,
}

/// Follows the cache through the operators that append to it.
fn follow(graph: &Graph, past: ValueId) -> Option<Link> {
    let mut pending = vec![past];
    while let Some(value) = pending.pop() {
        for (id, index) in graph.users(value) {
            let node = graph.node(id);
            let (output, axis) = match (node.domain.as_str(), node.op_type.as_str(), index) {
                ("", "Concat", _) => (node.output(0), node.int("axis", 2).rem_euclid(4) as usize),
                ("", "Attention", 4 | 5) => (node.output(index - 3), 2),
                (MICROSOFT, "GroupQueryAttention", 3 | 4) => (node.output(index - 2), 2),
                (MICROSOFT, "MultiHeadAttention", 6 | 7) => (node.output(index - 5), 2),
                ("", "Identity" | "Cast", _) => (node.output(0), 2),
                _ => continue,
            };
            let Some(output) = output else { continue };
            if graph.is_output(output) {
                return Some(Link { present: output, axis, head_size: head_size(graph, node) });
            }
            pending.push(output);
        }
    }
    None
}

/// The head size of `GroupQueryAttention` by its rotary table, where every channel is rotated or
/// the rotary size is not given.
fn head_size(graph: &Graph, node: &planish_ir::Node) -> Option<usize> {
    let table =
        node.input(7).filter(|_| node.domain == MICROSOFT).and_then(|v| graph.constant(v))?;
    let half = table.shape().get(1)?;
    (node.int("rotary_embedding_dim", 0) == 0).then_some(half * 2)
}

/// The output that is called as exporters call the continuation of this input.
fn namesake(graph: &Graph, past: ValueId) -> Option<Link> {
    let name = &graph.value(past).name;
    let candidates = [name.replace("past_key_values", "present"), name.replace("past", "present")];
    let is_other = |n: &&String| *n != name;
    let found = candidates.iter().filter(is_other).find_map(|n| graph.find_value(n));
    let present = found.filter(|v| graph.is_output(*v))?;
    Some(Link { present, axis: 2, head_size: None })
}
