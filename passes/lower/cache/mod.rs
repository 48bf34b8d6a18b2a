//! KV caches move from the graph's inputs and outputs into the session.

use std::collections::HashMap;

use planish_ir::{DataType, Graph, Model, Node, NodeId, ValueId};
use planish_kernels::DOMAIN;
use planish_kernels::infer::Facts;

use super::shape_of_past::PastSizes;
use crate::canonicalize::{MaskForm, classify_mask};
use crate::half::{input_behind, output_behind};
use crate::pass::{PassContext, PassError};

#[cfg(test)]
mod tests;

/// Positions of a cache among the inputs and outputs of `Attention`.
const PAST: [usize; 2] = [4, 5];
const PRESENT: [usize; 2] = [1, 2];

/// An `Attention` node whose past comes from graph inputs and whose present only leaves the
/// graph becomes `planish.CachedAttention`; those inputs and outputs go. A quantiser of keys and
/// values in front of it becomes the format of the cache.
pub(super) fn lower_caches(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let mut sites = Vec::new();
    let mut masks = Masks::new(model, &facts);
    for id in model.graph.topological_order().map_err(|e| PassError::Other(e.to_string()))? {
        if !model.graph.node(id).is("Attention") {
            continue;
        }
        match Site::find(&model.graph, &facts, &mut masks, id) {
            Ok(site) => sites.push(site),
            Err(reason) => context.note(format!("{}: {reason}", model.graph.node(id).describe())),
        }
    }
    let n_rewrites = sites.len();
    let batch = sites.first().and_then(|site| facts.get(site.past[0]).dim(0).cloned());
    let Some(mut sizes) = PastSizes::new(&model.graph, batch.as_ref()) else {
        context.note("no graph input of integers has the size of the batch");
        return Ok(0);
    };
    let mut paddings = HashMap::new();
    for (layer, site) in sites.into_iter().enumerate() {
        site.lower(&mut model.graph, layer, &mut sizes, &mut paddings);
    }
    model.graph.remove_dead();
    Ok(n_rewrites)
}

/// What masks say, each worked out once.
struct Masks<'a> {
    model: &'a Model,
    facts: &'a Facts,
    forms: HashMap<ValueId, Result<MaskForm, String>>,
}

impl<'a> Masks<'a> {
    fn new(model: &'a Model, facts: &'a Facts) -> Self {
        Self { model, facts, forms: HashMap::new() }
    }

    fn form(&mut self, mask: ValueId) -> Result<MaskForm, String> {
        let opset = |domain: &str| self.model.opset(domain).unwrap_or(1);
        let classify = || classify_mask(&self.model.graph, self.facts, &opset, mask);
        self.forms.entry(mask).or_insert_with(classify).clone()
    }
}

/// What an attention node adds to the scores.
struct Mask {
    is_causal: bool,
    window: usize,
    /// A graph input `[batch, total]` that is zero where a key is padding.
    padding: Option<ValueId>,
}

/// A node that can be lowered.
struct Site {
    node: NodeId,
    past: [ValueId; 2],
    present: [ValueId; 2],
    kv_heads: i64,
    head_size: i64,
    mask: Mask,
    quantizers: Option<[NodeId; 2]>,
}

impl Site {
    fn find(graph: &Graph, facts: &Facts, masks: &mut Masks, id: NodeId) -> Result<Self, String> {
        let node = graph.node(id);
        let pair =
            |of: &dyn Fn(usize) -> Option<ValueId>, at: [usize; 2]| Some([of(at[0])?, of(at[1])?]);
        let past = pair(&|i| node.input(i), PAST).ok_or("it has no past")?;
        let present = pair(&|i| node.output(i), PRESENT).ok_or("it gives no present")?;
        if node.output(3).is_some() || node.input(6).is_some() {
            return Err("it returns scores, or takes key lengths".into());
        }
        if node.int("q_num_heads", 0) == 0 || facts.get(past[0]).rank() != Some(4) {
            return Err("its heads are not in the last axis".into());
        }
        let past = [check_past(graph, past[0], id)?, check_past(graph, past[1], id)?];
        let present = [check_present(graph, present[0])?, check_present(graph, present[1])?];
        let kv_heads = node.int("kv_num_heads", 0);
        let size =
            |index| Some(facts.get(node.input(index)?).dim(-1)?.as_const()? / kv_heads.max(1));
        let head_size = size(1).ok_or("the head size is not known")?;
        if size(2) != Some(head_size) {
            return Err("keys and values differ in size".into());
        }
        Ok(Self {
            node: id,
            past,
            present,
            kv_heads,
            head_size,
            mask: find_mask(masks, node)?,
            quantizers: find_quantizers(graph, node, head_size),
        })
    }

    fn lower(
        self,
        graph: &mut Graph,
        layer: usize,
        sizes: &mut PastSizes,
        paddings: &mut HashMap<ValueId, ValueId>,
    ) {
        for past in self.past {
            for user in shape_readers(graph, past) {
                sizes.replace_shape(graph, user, self.kv_heads, self.head_size);
            }
        }
        let padding = self
            .mask
            .padding
            .map(|mask| *paddings.entry(mask).or_insert_with(|| as_bool(graph, mask)));
        let lowered = self.cached_attention(graph, layer, padding);
        graph.outputs.retain(|v| !self.present.contains(v));
        graph.replace_node(self.node, lowered).expect("the output was just freed");
        graph.inputs.retain(|v| !self.past.contains(v));
    }

    fn cached_attention(&self, graph: &Graph, layer: usize, padding: Option<ValueId>) -> Node {
        let node = graph.node(self.node);
        let mut inputs: Vec<_> = node.inputs[..3].to_vec();
        let mut lowered = Node::new("CachedAttention", Vec::new()).with_domain(DOMAIN);
        lowered.name.clone_from(&node.name);
        lowered.outputs = vec![node.output(0)];
        for name in ["q_num_heads", "kv_num_heads"] {
            lowered = lowered.with(name, node.int(name, 0));
        }
        let scale = node.float("scale", 1.0 / (self.head_size as f32).sqrt());
        lowered = lowered
            .with("layer", layer as i64)
            .with("scale", scale)
            .with("softcap", node.float("softcap", 0.0))
            .with("is_causal", i64::from(self.mask.is_causal))
            .with("window", self.mask.window as i64);
        if let Some(quantizers) = self.quantizers {
            for (index, quantizer) in quantizers.into_iter().enumerate() {
                inputs[index + 1] = graph.node(quantizer).input(0);
            }
            lowered = with_format(lowered, quantizers.map(|id| graph.node(id)));
        } else {
            lowered = lowered.with("kv_bits", 32i64);
        }
        inputs.extend(padding.map(Some));
        lowered.inputs = inputs;
        lowered
    }
}

/// The `Shape` nodes that read a value or what it is cast to.
fn shape_readers(graph: &Graph, value: ValueId) -> Vec<NodeId> {
    let users = graph.users(value).into_iter().map(|(user, _)| user);
    let readers = |user: NodeId| {
        let node = graph.node(user);
        let cast = node.output(0).filter(|_| node.is("Cast"));
        let behind = cast.map(|cast| shape_readers(graph, cast)).unwrap_or_default();
        behind.into_iter().chain(node.is("Shape").then_some(user))
    };
    users.flat_map(readers).collect()
}

/// The graph input that a past is, or is cast from. Only this node reads it, and `Shape`.
fn check_past(graph: &Graph, value: ValueId, attention: NodeId) -> Result<ValueId, String> {
    let name = &graph.value(value).name;
    let input = input_behind(graph, value);
    let input = input.ok_or_else(|| format!("the past \"{name}\" is no graph input"))?;
    if graph.is_output(input) || graph.is_output(value) {
        return Err(format!("the past \"{name}\" is a graph output too"));
    }
    let cast = graph.producer(value).map(|(id, _)| id);
    let reads = |(user, index): &(NodeId, usize)| *user == attention && PAST.contains(index);
    let is_allowed = |user: &(NodeId, usize)| {
        reads(user) || graph.node(user.0).is("Shape") || cast == Some(user.0)
    };
    let mut users = graph.users(input);
    users.extend(graph.users(value).into_iter().filter(|user| !reads(user)));
    match users.iter().find(|user| !is_allowed(user)) {
        Some((user, _)) => Err(format!("{} reads the past too", graph.node(*user).describe())),
        None => Ok(input),
    }
}

/// The graph output that a present is, or is cast to. Nobody inside reads it.
fn check_present(graph: &Graph, value: ValueId) -> Result<ValueId, String> {
    let name = &graph.value(value).name;
    output_behind(graph, value).ok_or_else(|| {
        let users = graph.users(value);
        match users.first().filter(|_| graph.is_output(value) || users.len() > 1) {
            Some((user, _)) => format!("{} reads the present", graph.node(*user).describe()),
            None => format!("the present \"{name}\" is no graph output"),
        }
    })
}

fn find_mask(masks: &mut Masks, node: &Node) -> Result<Mask, String> {
    let is_causal = node.int("is_causal", 0) != 0;
    let Some(mask) = node.input(3) else {
        return Ok(Mask { is_causal, window: 0, padding: None });
    };
    let form = masks.form(mask)?;
    let is_causal = is_causal || form.is_causal;
    if form.window.is_some() && !is_causal {
        return Err("its mask is a window that looks ahead".into());
    }
    Ok(Mask { is_causal, window: form.window.unwrap_or(0), padding: form.padding })
}

/// The quantisers of keys and values, if both have one of the same width, a head at a time.
fn find_quantizers(graph: &Graph, node: &Node, head_size: i64) -> Option<[NodeId; 2]> {
    let quantizer = |index: usize| {
        let (id, _) = graph.producer(node.input(index)?)?;
        let node = graph.node(id);
        let fits = node.int("head_size", 0) == head_size && matches!(node.int("bits", 0), 4 | 8);
        (node.is_of(DOMAIN, "QuantizeDequantizeHeads") && fits).then_some(id)
    };
    let (keys, values) = (quantizer(1)?, quantizer(2)?);
    let bits = |id: NodeId| graph.node(id).int("bits", 0);
    (bits(keys) == bits(values)).then_some([keys, values])
}

/// Width and clipping of the cache, as its quantisers say.
fn with_format(node: Node, [keys, values]: [&Node; 2]) -> Node {
    node.with("kv_bits", keys.int("bits", 4))
        .with("key_clip_min", keys.float("clip_min", 1.0))
        .with("key_clip_max", keys.float("clip_max", 1.0))
        .with("value_clip_min", values.float("clip_min", 1.0))
        .with("value_clip_max", values.float("clip_max", 1.0))
}

fn as_bool(graph: &mut Graph, mask: ValueId) -> ValueId {
    if graph.value(mask).dtype() == Some(DataType::Bool) {
        return mask;
    }
    let to = i64::from(DataType::Bool.to_onnx());
    graph.add_op("key_mask", Node::new("Cast", vec![Some(mask)]).with("to", to))
}
