//! Attention with its cache: `GroupQueryAttention`.

use std::collections::HashMap;

use planish_ir::{DataType, Graph, Model, Node, NodeId, Tensor, ValueId};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::{Facts, infer};

use super::DecoderInputs;
use super::rotary::Tables;
use crate::canonicalize::{MaskForm, classify_mask};
use crate::emit::EmitError;
use crate::emit::used::int64s;

/// ONNX Runtime's kernels rotate heads of a multiple of this many channels only.
const ROTARY_MULTIPLE: usize = 16;

/// What became of the attentions.
#[derive(Debug, Default)]
pub(super) struct Attentions {
    /// Caches of every attention in order, key and value: inputs, then outputs.
    pub(super) caches: Vec<Caches>,
    /// Query heads, key and value heads, channels of a head; of the first attention.
    pub(super) heads: Option<[usize; 3]>,
    /// Nodes that stay as they are, and why.
    pub(super) left: Vec<String>,
}

/// The cache of one attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caches {
    pub(super) past: [ValueId; 2],
    pub(super) present: [ValueId; 2],
}

/// Rewrites every `Attention` with a cache and a mask that `GroupQueryAttention` has words for;
/// rotary embeddings before it go into it where they follow from positions alone.
pub(super) fn lower_attentions(
    model: &mut Model,
    inputs: &DecoderInputs,
    n_positions: usize,
) -> Result<Attentions, EmitError> {
    let facts = infer(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    let order = model.graph.topological_order();
    let order = order.map_err(|error| EmitError::Infer(error.to_string()))?;
    let nodes = order.into_iter().filter(|id| model.graph.node(*id).is("Attention"));
    let mut result = Attentions::default();
    let mut sites = Vec::new();
    let mut finder = Finder::new(model, &facts, inputs, n_positions);
    for id in nodes {
        match finder.find(id) {
            Ok(site) => {
                result.heads.get_or_insert(site.heads);
                result.caches.push(site.caches);
                sites.push(site);
            }
            Err(Left { reason, caches, heads }) => {
                let node = model.graph.node(id).describe();
                result.left.push(format!("{node} stays as it is: {reason}"));
                result.caches.extend(caches);
                result.heads = result.heads.or(heads);
            }
        }
    }
    let tables = finder.tables;
    let mut shared = Shared::new(&mut model.graph, inputs, tables);
    for site in sites {
        site.lower(&mut model.graph, &mut shared);
    }
    model.graph.remove_dead();
    Ok(result)
}

/// An attention that is not rewritten.
struct Left {
    reason: String,
    caches: Option<Caches>,
    heads: Option<[usize; 3]>,
}

/// An attention to rewrite.
struct Site {
    node: NodeId,
    caches: Caches,
    heads: [usize; 3],
    mask: MaskForm,
    /// Queries and keys before their rotation.
    rotary: Option<Rotary>,
}

/// A rotation of queries and keys.
#[derive(Clone, Copy)]
struct Rotary {
    q: ValueId,
    k: ValueId,
    cos: ValueId,
    sin: ValueId,
    interleaved: i64,
}

struct Finder<'a> {
    model: &'a Model,
    facts: &'a Facts,
    inputs: &'a DecoderInputs,
    n_positions: usize,
    masks: HashMap<ValueId, Result<MaskForm, String>>,
    /// Tables of cosines and sines, by the values that they stand for.
    tables: HashMap<ValueId, Result<Tensor, String>>,
}

impl<'a> Finder<'a> {
    fn new(model: &'a Model, facts: &'a Facts, inputs: &'a DecoderInputs, n: usize) -> Self {
        let (masks, tables) = (HashMap::new(), HashMap::new());
        Self { model, facts, inputs, n_positions: n, masks, tables }
    }

    fn find(&mut self, id: NodeId) -> Result<Site, Left> {
        let node = self.model.graph.node(id);
        let nothing = |reason: &str| Left { reason: reason.into(), caches: None, heads: None };
        let caches = caches(&self.model.graph, node).ok_or_else(|| nothing("it has no cache"))?;
        let heads = heads(self.facts, node).ok_or_else(|| nothing("its heads are not known"))?;
        let left = |reason: String| Left { reason, caches: Some(caches), heads: Some(heads) };
        if node.output(3).is_some() || node.input(6).is_some() {
            return Err(left("it returns scores, or takes key lengths".into()));
        }
        let mask = self.mask(node).map_err(left)?;
        Ok(Site { node: id, caches, heads, mask, rotary: self.rotary(node, heads[2]) })
    }

    fn mask(&mut self, node: &Node) -> Result<MaskForm, String> {
        let is_causal = node.int("is_causal", 0) != 0;
        let mut form = MaskForm { is_causal, window: None, padding: None };
        if let Some(mask) = node.input(3) {
            let opset = |domain: &str| self.model.opset(domain).unwrap_or(1);
            let classify = || classify_mask(&self.model.graph, self.facts, &opset, mask);
            form = self.masks.entry(mask).or_insert_with(classify).clone()?;
            form.is_causal |= is_causal;
        }
        if !form.is_causal {
            return Err("its mask is not causal".into());
        }
        if form.padding.is_some() && form.padding != self.inputs.mask {
            return Err("its mask depends on an input that is no attention mask".into());
        }
        Ok(form)
    }

    /// The rotation before an attention, if a table can stand for it.
    fn rotary(&mut self, node: &Node, head_size: usize) -> Option<Rotary> {
        let graph = &self.model.graph;
        let rotation = |index: usize| {
            let node = graph.producer_node(node.input(index)?)?;
            let is_plain = node.is("RotaryEmbedding") && node.input(3).is_none();
            is_plain.then_some(node)
        };
        let (q, k) = (rotation(0)?, rotation(1)?);
        let same = |name| q.int(name, 0) == k.int(name, 0);
        let (cos, sin) = (q.input(1)?, q.input(2)?);
        let alike = k.input(1) == Some(cos) && k.input(2) == Some(sin);
        if !alike || !same("interleaved") || !head_size.is_multiple_of(ROTARY_MULTIPLE) {
            return None;
        }
        let interleaved = q.int("interleaved", 0);
        let rotary = Rotary { q: q.input(0)?, k: k.input(0)?, cos, sin, interleaved };
        let mut widths = [cos, sin].map(|value| self.table_width(value));
        let width = widths[0].take()?;
        let fits = widths[1] == Some(width) && (2 * width).is_multiple_of(ROTARY_MULTIPLE);
        fits.then_some(rotary)
    }

    fn table_width(&mut self, value: ValueId) -> Option<usize> {
        let (model, facts, inputs) = (self.model, self.facts, self.inputs);
        let tables = Tables { model, facts, inputs, n_positions: self.n_positions };
        let table = self.tables.entry(value).or_insert_with(|| tables.table(value));
        table.as_ref().ok().and_then(|table| table.shape().get(1).copied())
    }
}

/// The cache of an attention, if it comes from graph inputs and leaves by graph outputs.
fn caches(graph: &Graph, node: &Node) -> Option<Caches> {
    let past = [node.input(4)?, node.input(5)?];
    let present = [node.output(1)?, node.output(2)?];
    let leave =
        past.iter().all(|v| graph.is_input(*v)) && present.iter().all(|v| graph.is_output(*v));
    leave.then_some(Caches { past, present })
}

/// Query heads, key and value heads, and their channels, which must be the same for all.
fn heads(facts: &Facts, node: &Node) -> Option<[usize; 3]> {
    let count = |name| usize::try_from(node.int(name, 0)).ok().filter(|n| *n > 0);
    let (q_heads, kv_heads) = (count("q_num_heads")?, count("kv_num_heads")?);
    let size = |index: usize, heads: usize| {
        let width = facts.get(node.input(index)?).dim(-1)?.as_usize()?;
        Some(width / heads)
    };
    let head_size = size(0, q_heads)?;
    let same = size(1, kv_heads)? == head_size && size(2, kv_heads)? == head_size;
    same.then_some([q_heads, kv_heads, head_size])
}

/// What all attentions read.
struct Shared {
    tables: HashMap<ValueId, ValueId>,
    /// INT32 `[batch]`: keys of each sequence after this run, less one.
    lengths: ValueId,
    /// INT32: keys of the longest.
    total: ValueId,
}

impl Shared {
    fn new(
        graph: &mut Graph,
        inputs: &DecoderInputs,
        tables: HashMap<ValueId, Result<Tensor, String>>,
    ) -> Self {
        let mut tables: Vec<_> =
            tables.into_iter().filter_map(|(v, t)| Some((v, t.ok()?))).collect();
        tables.sort_by_key(|(value, _)| *value);
        let add = |(value, table): (ValueId, Tensor)| {
            let name = format!("{}_cache", graph.value(value).name);
            (value, graph.add_constant(&name, table))
        };
        let tables = tables.into_iter().map(add).collect();
        let (lengths, total) = lengths(graph, inputs.mask.expect("the mask was made sure of"));
        Self { tables, lengths, total }
    }
}

/// The lengths of the sequences and of the longest, from an attention mask `[batch, total]`.
fn lengths(graph: &mut Graph, mask: ValueId) -> (ValueId, ValueId) {
    let cast = |graph: &mut Graph, name: &str, value, to: DataType| {
        let node = Node::new("Cast", vec![Some(value)]).with("to", i64::from(to.to_onnx()));
        graph.add_op(name, node)
    };
    let counted = match graph.value(mask).dtype() {
        Some(DataType::I64) => mask,
        _ => cast(graph, "attention_mask_int64", mask, DataType::I64),
    };
    let axes = graph.add_constant("sequence_axis", int64s(&[1]));
    let sum = Node::new("ReduceSum", vec![Some(counted), Some(axes)]).with("keepdims", 0i64);
    let sum = graph.add_op("sequence_lengths", sum);
    let one = graph.add_constant("one", int64s(&[1]));
    let less = graph.add_op("sequence_lengths", Node::new("Sub", vec![Some(sum), Some(one)]));
    let lengths = cast(graph, "seqlens_k", less, DataType::I32);
    let shape = graph.add_op("mask_shape", Node::new("Shape", vec![Some(mask)]));
    let index = graph.add_constant("sequence_index", Tensor::scalar(1i64));
    let width = Node::new("Gather", vec![Some(shape), Some(index)]).with("axis", 0i64);
    let width = graph.add_op("total", width);
    (lengths, cast(graph, "total_sequence_length", width, DataType::I32))
}

impl Site {
    fn lower(self, graph: &mut Graph, shared: &mut Shared) {
        let node = graph.node(self.node).clone();
        let rotary = self.rotary.and_then(|rotary| {
            let table = |value| shared.tables.get(&value).copied();
            Some((rotary, table(rotary.cos)?, table(rotary.sin)?))
        });
        let (q, k) = match &rotary {
            Some((rotary, ..)) => (Some(rotary.q), Some(rotary.k)),
            None => (node.input(0), node.input(1)),
        };
        let [past_key, past_value] = self.caches.past.map(Some);
        let lengths = [Some(shared.lengths), Some(shared.total)];
        let mut inputs = vec![q, k, node.input(2), past_key, past_value];
        inputs.extend(lengths);
        inputs.extend(rotary.iter().flat_map(|(_, cos, sin)| [Some(*cos), Some(*sin)]));
        let window = self.mask.window.map_or(-1, |window| window as i64);
        let interleaved = rotary.as_ref().map_or(0, |(rotary, ..)| rotary.interleaved);
        let lowered = Node::new("GroupQueryAttention", inputs)
            .with_domain(MICROSOFT)
            .with_name(node.name.clone())
            .with("num_heads", self.heads[0] as i64)
            .with("kv_num_heads", self.heads[1] as i64)
            .with("scale", node.float("scale", 0.0))
            .with("softcap", node.float("softcap", 0.0))
            .with("local_window_size", window)
            .with("do_rotary", i64::from(rotary.is_some()))
            .with("rotary_interleaved", interleaved)
            .with_outputs(node.outputs.iter().take(3).copied().collect());
        graph.replace_node(self.node, lowered).expect("the outputs were just freed");
    }
}
