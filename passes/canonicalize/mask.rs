//! Attention masks, told apart by what they compute.
//!
//! Exporters spell the causal mask in ever new ways, all of them functions of a few sizes and of
//! the padding mask. So a mask is not matched node by node: the part of the graph that computes
//! it is evaluated for a few sizes and random padding, and compared with the formulas that
//! attention operators know. The sizes reach past every integer constant in that part, so that a
//! sliding window can't hide.

use std::collections::{BTreeSet, HashMap, HashSet};

use planish_ir::{DataType, Dim, Graph, Model, Tensor, ValueId};
use planish_kernels::infer::Facts;

use super::attention::padding_mask;
use crate::interpret::Interpreter;
use crate::pass::{PassContext, PassError};

/// A mask as a formula: query i (at position past + i) sees key j if …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskForm {
    /// … j ≤ past + i, and
    pub is_causal: bool,
    /// … j > past + i − window, and
    pub window: Option<usize>,
    /// … this graph input `[batch, total]` is not zero at j.
    pub padding: Option<ValueId>,
}

impl MaskForm {
    /// The keys that a query sees, in words.
    fn describe(&self, graph: &Graph) -> String {
        let order = if self.is_causal { "keys up to its own" } else { "all keys" };
        let window = self.window.map(|n| format!(" in a window of {n}")).unwrap_or_default();
        let name = |padding| graph.value(padding).name.clone();
        let padding = self.padding.map(|v| format!(" that are set in \"{}\"", name(v)));
        format!("a query sees {order}{window}{}", padding.unwrap_or_default())
    }
}

/// What is added to the score of a key that is hidden, or less.
const HIDDEN: f32 = -1e4;
/// Largest size tried to find a window.
const MAX_PROBED: i64 = 300_000;
/// The same for masks without a cache, which are squares.
const MAX_SQUARE: i64 = 4_100;

/// Lets attention nodes say that they are causal, where their mask says just that; what is left
/// of the mask is the padding, built once for all of them.
pub(super) fn lift_masks(model: &mut Model, context: &mut PassContext) -> Result<usize, PassError> {
    let facts = context.infer(model)?;
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let graph = &model.graph;
    let mut forms: HashMap<ValueId, Result<MaskForm, String>> = HashMap::new();
    let mut todo = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some(mask) = node.input(3).filter(|_| node.is("Attention")) else { continue };
        if node.int("is_causal", 0) != 0 {
            continue;
        }
        let form = forms.entry(mask).or_insert_with(|| classify_mask(graph, &facts, &opset, mask));
        match form {
            Ok(MaskForm { is_causal: true, window: None, padding }) => {
                todo.push((id, mask, *padding));
            }
            Ok(other) => {
                let name = &graph.value(mask).name;
                let what = other.describe(graph);
                context.note(format!("{}: the mask \"{name}\" stays: {what}", node.describe()));
            }
            Err(reason) => context.note(format!("{}: {reason}", node.describe())),
        }
    }
    let n_rewrites = todo.len();
    let mut shared: HashMap<ValueId, ValueId> = HashMap::new();
    for (id, mask, padding) in todo {
        let sequence = facts.get(mask).dim(2).cloned();
        let graph = &mut model.graph;
        let replacement = padding.and_then(|padding| {
            let ids = tokens_input(graph, &facts, sequence.as_ref()?)?;
            Some(*shared.entry(padding).or_insert_with(|| padding_mask(graph, ids, padding)))
        });
        if padding.is_some() && replacement.is_none() {
            context.note("no graph input has the shape [batch, sequence]");
            continue;
        }
        graph.set_input(id, 3, replacement);
        graph.node_mut(id).attributes.insert("is_causal".into(), 1i64.into());
    }
    model.graph.remove_dead();
    Ok(n_rewrites)
}

/// A graph input `[batch, sequence]` of integers.
fn tokens_input(graph: &Graph, facts: &Facts, sequence: &Dim) -> Option<ValueId> {
    graph.inputs.iter().copied().find(|v| {
        let fact = facts.get(*v);
        fact.rank() == Some(2)
            && fact.dim(1) == Some(sequence)
            && fact.dtype.is_some_and(DataType::is_integer)
    })
}

/// Finds the formula of a mask `[batch or 1, 1, sequence, total]`, boolean or additive.
///
/// # Errors
/// A sentence that says what does not fit.
pub fn classify_mask(
    graph: &Graph,
    facts: &Facts,
    opset: &dyn Fn(&str) -> i64,
    mask: ValueId,
) -> Result<MaskForm, String> {
    let probe = Probe::new(graph, facts, opset, mask)?;
    let constants = probe.constants();
    let longest = constants.iter().copied().max().unwrap_or(0).min(MAX_PROBED);
    let mut sizes = vec![(2, 3, 4), (1, 1, 6), (2, 5, 0), (1, 4, 9)];
    if !probe.has_cache() {
        if longest > MAX_SQUARE {
            let name = &graph.value(mask).name;
            return Err(format!(
                "the mask \"{name}\" has a window of up to {longest}, too long to be tried"
            ));
        }
        sizes = vec![(2, 3, 0), (1, 7, 0), (1, longest + 3, 0)];
    } else {
        sizes.push((1, 2, longest + 3));
    }
    let samples = probe.samples(&sizes).or_else(|error| {
        // Some can be computed for a prompt, and for one token behind it, alone.
        let apart = [(2, 5, 0), (1, 7, 0), (2, 1, 4), (1, 1, longest + 3)];
        let samples = if probe.has_cache() { probe.samples(&apart) } else { Err(String::new()) };
        samples.map_err(|_| error)
    })?;
    let windows = constants.iter().flat_map(|w| [*w, *w + 1, *w - 1]).filter(|w| *w > 0);
    let windows = std::iter::once(None).chain(windows.map(|w| usize::try_from(w).ok()));
    for window in windows {
        for is_causal in [true, false] {
            for padding in [probe.padding, None] {
                let form = MaskForm { is_causal, window, padding };
                if samples.iter().all(|sample| sample.agrees(&form)) {
                    return Ok(form);
                }
            }
        }
    }
    Err(format!("the mask \"{}\" is no causal, windowed or padding mask", graph.value(mask).name))
}

/// The part of the graph that computes a mask.
struct Probe<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    opset: &'a dyn Fn(&str) -> i64,
    mask: ValueId,
    leaves: Vec<ValueId>,
    nodes: HashSet<planish_ir::NodeId>,
    sequence: Dim,
    past: Dim,
    total: Dim,
    padding: Option<ValueId>,
}

/// A mask computed for certain sizes.
struct Sample {
    sequence: usize,
    past: usize,
    /// `[batch or 1, sequence, total]`
    keep: Vec<bool>,
    /// `[batch, total]`, empty where there is no padding mask.
    padding: Vec<bool>,
}

impl<'a> Probe<'a> {
    fn new(
        graph: &'a Graph,
        facts: &'a Facts,
        opset: &'a dyn Fn(&str) -> i64,
        mask: ValueId,
    ) -> Result<Self, String> {
        let name = &graph.value(mask).name;
        let shape = facts.shape(mask).ok_or_else(|| format!("the mask \"{name}\" has no shape"))?;
        let [_, heads, sequence, total] = shape else {
            return Err(format!("the mask \"{name}\" has shape {shape:?}"));
        };
        if heads.as_const() != Some(1) {
            return Err(format!("the mask \"{name}\" differs between heads"));
        }
        let (leaves, nodes) = cone(graph, mask);
        // Without a cache the padding is as wide as the token ids, of which only the shape counts.
        let has_past = total.sub(sequence).as_const() != Some(0);
        let is_read = |v: &ValueId| {
            let readers = graph.users(*v).into_iter().filter(|(id, _)| nodes.contains(id));
            readers.into_iter().any(|(id, _)| !graph.node(id).is("Shape"))
        };
        let is_padding = |v: &ValueId| {
            let fact = facts.get(*v);
            fact.rank() == Some(2)
                && fact.dtype.is_some_and(|d| d.is_integer() || d == DataType::Bool)
                && (fact.dim(1) != Some(sequence) || (!has_past && is_read(v)))
        };
        let padding = leaves.iter().copied().find(is_padding);
        let (sequence, past, total) = (sequence.clone(), total.sub(sequence), total.clone());
        Ok(Self { graph, facts, opset, mask, leaves, nodes, sequence, past, total, padding })
    }

    fn has_cache(&self) -> bool {
        self.past.as_const() != Some(0)
    }

    /// The whole numbers that occur as constants, where a window may stand.
    fn constants(&self) -> BTreeSet<i64> {
        let nodes = self.nodes.iter().map(|id| self.graph.node(*id));
        let values = nodes.flat_map(|node| node.inputs.iter().flatten());
        let tensors = values.filter_map(|value| self.graph.constant(*value));
        tensors
            .filter(|t| t.n_elements() <= 16)
            .flat_map(whole_numbers)
            .map(i64::saturating_abs)
            .filter(|value| (2..MAX_PROBED).contains(value))
            .collect()
    }

    fn samples(&self, sizes: &[(i64, i64, i64)]) -> Result<Vec<Sample>, String> {
        sizes.iter().map(|(batch, sequence, past)| self.sample(*batch, *sequence, *past)).collect()
    }

    /// Computes the mask for a batch of `batch`, `sequence` new tokens after `past` others.
    fn sample(&self, batch: i64, sequence: i64, past: i64) -> Result<Sample, String> {
        let mut binding = HashMap::new();
        bind(&mut binding, &self.sequence, sequence);
        bind(&mut binding, &self.past, past);
        bind(&mut binding, &self.total, past + sequence);
        for leaf in &self.leaves {
            let fact = self.facts.get(*leaf);
            if let Some(first) = fact.dim(0) {
                bind(&mut binding, first, batch);
            }
            // A cache, whose length the mask may know as the rest of its own width; it asks for no size
            // of heads, which some exports do not say.
            if let Some([_, _, length, size]) = fact.shape.as_deref() {
                bind(&mut binding, length, past);
                bind(&mut binding, size, 1);
            }
        }
        if let Some(total) = self.padding.and_then(|v| self.facts.get(v).dim(1).cloned()) {
            bind(&mut binding, &total, past + sequence);
        }
        let padding = padding_pattern(batch * (past + sequence));
        let mut inputs = HashMap::new();
        for leaf in &self.leaves {
            let content = if Some(*leaf) == self.padding { &padding[..] } else { &[] };
            inputs.insert(*leaf, self.input(*leaf, &binding, content)?);
        }
        let mask = Interpreter::new(self.graph, self.opset, inputs).value(self.mask)?;
        let keep = self.keep(&mask)?;
        let padding = if self.padding.is_some() { padding } else { Vec::new() };
        Ok(Sample { sequence: sequence as usize, past: past as usize, keep, padding })
    }

    /// Which keys a computed mask lets through; it must add nothing to their scores.
    fn keep(&self, mask: &Tensor) -> Result<Vec<bool>, String> {
        if mask.dtype() == DataType::Bool {
            return Ok(mask.bytes().iter().map(|b| *b != 0).collect());
        }
        let values = mask.to_f32_vec().map_err(|e| e.to_string())?;
        match values.iter().find(|x| x.is_nan() || (**x != 0.0 && **x > HIDDEN)) {
            Some(x) => {
                let name = &self.graph.value(self.mask).name;
                Err(format!("the mask \"{name}\" adds {x} to a score"))
            }
            None => Ok(values.iter().map(|x| *x == 0.0).collect()),
        }
    }

    fn input(
        &self,
        leaf: ValueId,
        binding: &HashMap<String, i64>,
        content: &[bool],
    ) -> Result<Tensor, String> {
        let fact = self.facts.get(leaf);
        let name = &self.graph.value(leaf).name;
        let shape: Option<Vec<usize>> = fact.shape.as_ref().and_then(|shape| {
            let size = |d: &Dim| d.eval(&|s| binding.get(s).copied());
            shape.iter().map(|d| size(d).and_then(|n| usize::try_from(n).ok())).collect()
        });
        let shape =
            shape.ok_or_else(|| format!("the size of the input \"{name}\" is not known"))?;
        let dtype = fact.dtype.ok_or_else(|| format!("the input \"{name}\" has no type"))?;
        let n = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        let n = n.filter(|n| *n <= 4 * MAX_PROBED as usize);
        let n = n.ok_or_else(|| format!("the input \"{name}\" is too large to be tried"))?;
        if n == content.len() && dtype == DataType::I64 {
            return Ok(Tensor::from_vec(&shape, content.iter().map(|b| *b as i64).collect()));
        }
        let bytes = match (n == content.len(), dtype) {
            (true, DataType::Bool) => content.iter().map(|b| *b as u8).collect(),
            (true, DataType::I32) => {
                content.iter().flat_map(|b| (*b as i32).to_le_bytes()).collect()
            }
            _ => vec![0u8; dtype.n_bytes(n).unwrap_or(0)],
        };
        Tensor::new(dtype, shape, bytes.into()).map_err(|e| e.to_string())
    }
}

impl Sample {
    fn agrees(&self, form: &MaskForm) -> bool {
        let total = self.past + self.sequence;
        let n_batch = self.keep.len() / (self.sequence * total).max(1);
        // There is to be a row of padding for each sequence of the mask.
        if form.padding.is_some() && self.padding.len() != n_batch * total {
            return false;
        }
        (0..n_batch).all(|b| {
            (0..self.sequence).all(|i| {
                (0..total).all(|j| {
                    let position = self.past + i;
                    let expected = (!form.is_causal || j <= position)
                        && form.window.is_none_or(|w| j + w > position)
                        && (form.padding.is_none() || self.padding[b * total + j]);
                    self.keep[(b * self.sequence + i) * total + j] == expected
                })
            })
        })
    }
}

/// Everything that leads to `mask`: the graph inputs, and the nodes.
fn cone(graph: &Graph, mask: ValueId) -> (Vec<ValueId>, HashSet<planish_ir::NodeId>) {
    let mut leaves = BTreeSet::new();
    let mut nodes = HashSet::new();
    let mut stack = vec![mask];
    while let Some(value) = stack.pop() {
        match graph.producer(value) {
            Some((id, _)) if nodes.insert(id) => stack.extend(graph.inputs_and_captures(id)),
            Some(_) => {}
            None if graph.constant(value).is_none() => {
                leaves.insert(value);
            }
            None => {}
        }
    }
    (leaves.into_iter().collect(), nodes)
}

/// Binds the one symbol of a dimension, if it is one and is not bound.
fn bind(binding: &mut HashMap<String, i64>, dim: &Dim, value: i64) {
    if let [symbol] = &dim.symbols()[..]
        && *dim == Dim::symbol(symbol)
    {
        binding.entry(symbol.to_string()).or_insert(value);
    }
}

/// The whole numbers among the elements; very negative ones with a point are no sizes, but what
/// is added to hide a key.
fn whole_numbers(tensor: &Tensor) -> Vec<i64> {
    if !tensor.dtype().is_float() {
        return tensor.to_i64_vec().unwrap_or_default();
    }
    let values = tensor.to_f32_vec().unwrap_or_default();
    let is_size = |x: &f32| x.fract() == 0.0 && *x > HIDDEN;
    values.into_iter().filter(is_size).map(|x| x as i64).collect()
}

/// Keys that are tokens: a fixed irregular pattern.
fn padding_pattern(n: i64) -> Vec<bool> {
    (0..n).map(|i| (i * i * 7 + i * 3 + 1) % 5 != 0).collect()
}
