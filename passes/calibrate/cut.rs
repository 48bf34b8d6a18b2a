//! Cutting one block out of a decoder, as a model of its own.

use std::collections::HashMap;

use planish_ir::{
    DataType, Dim, Graph, GraphError, Model, Node, NodeId, TensorType, Value, ValueId, ValueType,
};
use planish_kernels::infer::{Facts, InferError, infer};

use crate::sites::{AttentionId, Block, Layout, LinearId, SiteId};

mod layout;
mod piece;

#[cfg(test)]
mod tests;

use piece::Piece;

/// One block of a decoder: from its input `[batch, sequence, hidden]` and whatever else it reads
/// to its output, without caches.
#[derive(Clone, Debug)]
pub struct BlockModel {
    /// The block. Its first input is the stream before the block, then come [`Self::outside`];
    /// its only output is the stream after the block. Weights share the bytes of the decoder's.
    pub model: Model,
    /// The layout of `model`: the sites, layers and attentions of the block, in the order of the
    /// decoder's layout; one block, no head.
    pub layout: Layout,
    /// The block's other inputs: rotary embeddings, masks.
    pub outside: Vec<Outside>,
    /// For each layer of `layout` which one of the decoder's it is.
    pub linears: Vec<LinearId>,
    /// For each site of `layout` which one of the decoder's it is.
    pub sites: Vec<SiteId>,
    /// For each attention of `layout` which one of the decoder's it is.
    pub attentions: Vec<AttentionId>,
    /// The values of the decoder that are in the block, and what they are there.
    pub values: HashMap<ValueId, ValueId>,
    /// The nodes of the decoder that are in the block, and what they are there.
    pub nodes: HashMap<NodeId, NodeId>,
}

impl BlockModel {
    /// The stream before the block, an input of [`Self::model`].
    pub fn input(&self) -> ValueId {
        self.model.graph.inputs[0]
    }

    /// The stream after the block, the output of [`Self::model`].
    pub fn output(&self) -> ValueId {
        self.model.graph.outputs[0]
    }
}

/// An activation that a block reads and that does not come out of the block before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Its name, the same in both models.
    pub name: String,
    /// The value in the decoder, to be taken from a run of it.
    pub original: ValueId,
    /// The input of the block's model.
    pub value: ValueId,
}

/// Why a block can't be cut out.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The graph has no order.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The layout has no such block.
    #[error("there is no block {0}")]
    NoBlock(usize),
    /// The stream is not what blocks read.
    #[error("block {block} reads {found}, not float32 with three axes")]
    Input {
        /// The block.
        block: usize,
        /// Type and rank of its input.
        found: String,
    },
    /// Something in the block needs the cache.
    #[error("block {block} needs its cache: {reason}")]
    Cache {
        /// The block.
        block: usize,
        /// What.
        reason: String,
    },
}

/// Cuts the block at `block` of `layout`, which is that of `model`, a decoder in canonical form.
///
/// What the block reads from elsewhere is computed from constants inside the cut model, or becomes
/// an input. `Attention` loses its past and present: the block sees whole sequences from their
/// first token. A mask that hides padding only (`Attention` with `is_causal`, a bool mask) is
/// dropped as well, because there is no padding to hide; other masks are inputs.
///
/// # Errors
/// If there is no such block, or it can't do without the cache.
pub fn cut_block(model: &Model, layout: &Layout, block: usize) -> Result<BlockModel, CutError> {
    let ends = layout.blocks.get(block).ok_or(CutError::NoBlock(block))?;
    let facts = infer(model)?;
    check_input(&facts, ends, block)?;
    let piece = Piece::find(&model.graph, &facts, ends)
        .map_err(|reason| CutError::Cache { block, reason })?;
    let mut copy = Copy::new(&model.graph, &facts, past_length(&model.graph, &facts, ends));
    copy.input(ends.input);
    piece.outside.iter().for_each(|value| copy.input(*value));
    for id in model.graph.topological_order()? {
        if let Some(node) = piece.nodes.get(&id) {
            copy.node(id, node)?;
        }
    }
    copy.output(ends.output);
    Ok(copy.finish(model, layout, ends, &piece.outside))
}

fn check_input(facts: &Facts, block: &Block, index: usize) -> Result<(), CutError> {
    let fact = facts.get(block.input);
    if fact.dtype == Some(DataType::F32) && fact.rank() == Some(3) {
        return Ok(());
    }
    let dtype = fact.dtype.map_or("an unknown type", DataType::name);
    let rank = fact.rank().map_or("an unknown number of".to_owned(), |rank| rank.to_string());
    Err(CutError::Input { block: index, found: format!("{dtype} with {rank} axes") })
}

/// The number of tokens in the cache of the block's first attention.
fn past_length(graph: &Graph, facts: &Facts, block: &Block) -> Option<Dim> {
    let attention = block.nodes.iter().find(|id| graph.node(**id).is("Attention"))?;
    facts.get(graph.node(*attention).input(4)?).dim(2).cloned()
}

/// The cut model under construction.
struct Copy<'a> {
    from: &'a Graph,
    facts: &'a Facts,
    past: Option<Dim>,
    graph: Graph,
    values: HashMap<ValueId, ValueId>,
    nodes: HashMap<NodeId, NodeId>,
}

impl<'a> Copy<'a> {
    fn new(from: &'a Graph, facts: &'a Facts, past: Option<Dim>) -> Self {
        let graph = Graph::new(from.name.clone());
        Self { from, facts, past, graph, values: HashMap::new(), nodes: HashMap::new() }
    }

    /// What a value is in the cut model, where it is added on first sight. Types are inferred
    /// anew: the decoder's have the cache in them.
    fn value(&mut self, value: ValueId) -> ValueId {
        if let Some(copied) = self.values.get(&value) {
            return *copied;
        }
        let name = self.from.value(value).name.as_str();
        let copied = match self.from.constant(value) {
            Some(tensor) => self.graph.add_constant(name, tensor.clone()),
            None => self.graph.new_value(name, ValueType::Unknown),
        };
        self.values.insert(value, copied);
        copied
    }

    fn input(&mut self, value: ValueId) {
        let copied = self.typed(value);
        self.graph.inputs.push(copied);
    }

    fn output(&mut self, value: ValueId) {
        let copied = self.typed(value);
        self.graph.outputs.push(copied);
    }

    /// Adds a value with its type declared.
    fn typed(&mut self, value: ValueId) -> ValueId {
        let (fact, copied) = (self.facts.get(value), self.value(value));
        let sizes = |shape: Vec<Dim>| shape.iter().map(|dim| self.without_past(dim)).collect();
        let (dtype, shape) = (fact.dtype, fact.shape.map(sizes));
        let target: &mut Value = self.graph.value_mut(copied);
        target.ty = ValueType::Tensor(TensorType { dtype, shape });
        target.declared = true;
        copied
    }

    /// A size, with nothing in the cache.
    fn without_past(&self, dim: &Dim) -> Dim {
        let Some(past) = &self.past else { return dim.clone() };
        let shared = past.symbols().iter().any(|symbol| dim.symbols().contains(symbol));
        if shared { dim.sub(past) } else { dim.clone() }
    }

    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), GraphError> {
        let mut copied = node.clone();
        let lists = copied.inputs.iter_mut().chain(&mut copied.outputs);
        lists.flatten().for_each(|value| *value = self.value(*value));
        for graph in copied.attributes.values_mut().flat_map(|attribute| attribute.graphs_mut()) {
            graph.captures.iter_mut().for_each(|c| c.outer = self.value(c.outer));
        }
        self.nodes.insert(id, self.graph.add_node(copied)?);
        Ok(())
    }

    fn finish(
        self,
        model: &Model,
        layout: &Layout,
        block: &Block,
        outside: &[ValueId],
    ) -> BlockModel {
        let found = layout::translate(layout, block, &self.values, &self.nodes);
        let outside = outside.iter().map(|original| Outside {
            name: self.from.value(*original).name.clone(),
            original: *original,
            value: self.values[original],
        });
        let outside = outside.collect();
        // Everything around the graph is the decoder's.
        let model = Model {
            ir_version: model.ir_version,
            opset_imports: model.opset_imports.clone(),
            functions: model.functions.clone(),
            graph: self.graph,
            ..Model::default()
        };
        let layout::Translated { layout, linears, sites, attentions } = found;
        let (values, nodes) = (self.values, self.nodes);
        BlockModel { model, layout, outside, linears, sites, attentions, values, nodes }
    }
}
