//! From heads on an axis of their own to heads side by side.

use std::collections::HashSet;

use planish_ir::{Graph, Node, NodeId, ValueId, ValueType};
use planish_kernels::infer::Facts;

use super::super::constants::int64s;
use super::decomposed::unscaled;
use super::{Parts, attention_node};
use crate::half::input_behind;

/// Rebuilds attentions over `[batch, sequence, heads · head size]`.
pub(super) struct Heads<'a> {
    pub graph: &'a mut Graph,
    pub facts: &'a Facts,
}

/// Keys or values before they were repeated for the query heads, and the cache they come from.
struct Cached {
    /// What this step adds, `[batch, kv_heads, sequence, head_size]`.
    new: ValueId,
    /// The cache before this step.
    past: Option<ValueId>,
    /// The cache after it.
    present: Option<ValueId>,
    n_heads: i64,
    head_size: i64,
}

impl Heads<'_> {
    /// Puts a canonical `Attention` in the place of the attention whose result the node `id`
    /// writes as `[batch, heads, sequence, head size]`.
    pub(super) fn rebuild(&mut self, id: NodeId, parts: &Parts) -> Result<(), String> {
        let output = self.graph.node(id).output(0).ok_or("its output is absent")?;
        let (q_heads, q_size) = self.head_axes(parts.q)?;
        let k = self.cached(parts.k)?;
        let v = self.cached(parts.v)?;
        if k.n_heads != v.n_heads || q_heads % k.n_heads != 0 {
            let (k, v) = (k.n_heads, v.n_heads);
            return Err(format!("{q_heads} query heads for {k} key and {v} value heads"));
        }
        if k.past.is_some() != v.past.is_some() {
            return Err("only one of keys and values has a cache".into());
        }
        if parts.is_causal && k.past.is_some() {
            // Without a cache of its own, the operator lets query 0 see key 0 only.
            return Err("it is causal from the first key on, which is in its cache".into());
        }
        self.check_order(parts, [&k, &v])?;
        let mut scale = parts.scale.unwrap_or(1.0 / (q_size as f32).sqrt());
        let q3 = self.side_by_side(parts.q)?;
        let q3 = unscaled(self.graph, q3, &mut scale);
        let k3 = self.side_by_side(k.new)?;
        let v3 = self.side_by_side(v.new)?;
        let inputs = [Some(q3), Some(k3), Some(v3), parts.mask, k.past, v.past];
        let mut node =
            attention_node(inputs, q_heads, k.n_heads, scale, parts.softcap, parts.is_causal);
        node.name = self.graph.node(id).name.clone();
        let hint = self.graph.value(output).name.clone();
        let y = self.graph.new_value(&format!("{hint}/side_by_side"), ValueType::Unknown);
        let mut outputs = vec![Some(y)];
        if let (Some(_), Some(k_present), Some(v_present)) = (k.past, k.present, v.present) {
            for cached in [&k, &v] {
                self.size_by_parts(cached);
            }
            self.detach(k_present);
            self.detach(v_present);
            outputs.extend([Some(k_present), Some(v_present)]);
        }
        self.graph.add_node(node.with_outputs(outputs)).map_err(|error| error.to_string())?;
        let restored = self.on_own_axis(y, q_heads, v.head_size);
        self.graph.replace_value(output, restored);
        Ok(())
    }

    /// The attention is to write the caches after it, so nothing that it reads may depend on these, but
    /// for their sizes, which are those before it and of what is new.
    fn check_order(&self, parts: &Parts, cached: [&Cached; 2]) -> Result<(), String> {
        let presents: Vec<ValueId> = cached.iter().filter_map(|cached| cached.present).collect();
        if matches!(presents[..], [k, v] if k == v) {
            return Err("keys and values have one cache".into());
        }
        let mut open = vec![parts.q, cached[0].new, cached[1].new];
        open.extend(parts.mask);
        let mut seen: HashSet<ValueId> = open.iter().copied().collect();
        while let Some(value) = open.pop() {
            if presents.contains(&value) {
                return Err("it depends on the cache that it writes".into());
            }
            let Some((id, _)) = self.graph.producer(value) else { continue };
            let is_size = self.graph.node(id).is("Shape");
            let inputs = self.graph.inputs_and_captures(id).into_iter();
            open.extend(inputs.filter(|v| !(is_size && presents.contains(v)) && seen.insert(*v)));
        }
        Ok(())
    }

    /// Number of heads and head size of a value with heads on axis 1.
    fn head_axes(&self, value: ValueId) -> Result<(i64, i64), String> {
        let shape = self.facts.shape(value).ok_or("unknown shape")?;
        match shape {
            [_, heads, _, size] => heads.as_const().zip(size.as_const()).ok_or(format!(
                "\"{}\" has shape {shape:?} with unknown heads",
                self.graph.value(value).name
            )),
            _ => Err(format!("\"{}\" has shape {shape:?}", self.graph.value(value).name)),
        }
    }

    /// Sees through the repetition of KV heads and the concatenation with the cache.
    fn cached(&self, value: ValueId) -> Result<Cached, String> {
        let grouped = self.ungrouped(value).unwrap_or(value);
        let (n_heads, head_size) = self.head_axes(grouped)?;
        let plain = Cached { new: grouped, past: None, present: None, n_heads, head_size };
        let Some(node) = self.graph.producer_node(grouped) else { return Ok(plain) };
        let along_sequence = matches!(node.int("axis", 0), -2 | 2);
        match (node.input(0), node.input(1)) {
            (Some(past), Some(new))
                if node.is("Concat")
                    && node.inputs.len() == 2
                    && along_sequence
                    && input_behind(self.graph, past).is_some() =>
            {
                Ok(Cached { new, past: Some(past), present: Some(grouped), n_heads, head_size })
            }
            _ => Ok(plain),
        }
    }

    /// The value before `Reshape(Expand(Unsqueeze(value, 2)))` repeated each head.
    fn ungrouped(&self, value: ValueId) -> Option<ValueId> {
        let merged = self.graph.producer_node(value).filter(|n| n.is("Reshape"))?;
        let repeated = self.graph.producer_node(merged.input(0)?).filter(|n| n.is("Expand"))?;
        let single = repeated.input(0)?;
        let unsqueeze = self.graph.producer_node(single)?;
        if !unsqueeze.is("Unsqueeze") && !unsqueeze.is("Reshape") {
            return None;
        }
        let source = unsqueeze.input(0)?;
        let [batch, heads, sequence, size] = self.facts.shape(source)? else { return None };
        let one = planish_ir::Dim::from(1i64);
        let repeats = self.facts.get(repeated.output(0)?).dim(2)?.clone();
        let expected_single = [batch.clone(), heads.clone(), one, sequence.clone(), size.clone()];
        let expected = [batch.clone(), heads.mul(&repeats), sequence.clone(), size.clone()];
        let matches =
            self.facts.shape(single)? == expected_single && self.facts.shape(value)? == expected;
        matches.then_some(source)
    }

    /// `[batch, sequence, heads · size]` for a value `[batch, heads, sequence, size]`: what it was
    /// before the heads were split off where that can be seen, else transposed and merged.
    fn side_by_side(&mut self, value: ValueId) -> Result<ValueId, String> {
        let (heads, _) = self.head_axes(value)?;
        if let Some(node) = self.graph.producer_node(value).cloned() {
            if node.is("RotaryEmbedding") && node.input(3).is_none() {
                let x = self.side_by_side(node.input(0).ok_or("an input is absent")?)?;
                let mut rotary = node.with("num_heads", heads);
                rotary.inputs[0] = Some(x);
                rotary.outputs.clear();
                let hint = self.graph.value(value).name.clone();
                return Ok(self.graph.add_op(&format!("{hint}/side_by_side"), rotary));
            }
            // Heads that were turned to be rotated, and back.
            let twice = self.turned(value).and_then(|once| self.turned(once));
            if let Some(same) = twice {
                return self.side_by_side(same);
            }
        }
        let last = self.heads_last(value);
        self.merged(value, last)
    }

    /// What `value` is the transpose of, heads and sequence swapped.
    fn turned(&self, value: ValueId) -> Option<ValueId> {
        let node = self.graph.producer_node(value).filter(|node| node.is("Transpose"))?;
        node.input(0).filter(|_| node.ints("perm") == Some(&[0, 2, 1, 3]))
    }

    /// `[batch, sequence, heads, size]` for `[batch, heads, sequence, size]`. Norms of single
    /// heads are moved to the other side of a transpose.
    fn heads_last(&mut self, value: ValueId) -> ValueId {
        if let Some(source) = self.turned(value) {
            return source;
        }
        let norm = self.graph.producer_node(value).filter(|node| self.is_head_norm(node));
        if let Some(mut norm) = norm.cloned()
            && let Some(x) = norm.input(0)
        {
            norm.inputs[0] = Some(self.heads_last(x));
            norm.outputs.clear();
            let hint = self.graph.value(value).name.clone();
            return self.graph.add_op(&format!("{hint}/heads_last"), norm.with("axis", -1));
        }
        let hint = self.graph.value(value).name.clone();
        let turned = Node::new("Transpose", vec![Some(value)]).with("perm", vec![0, 2, 1, 3]);
        self.graph.add_op(&hint, turned)
    }

    /// A norm over the last of four axes, the same for all heads.
    fn is_head_norm(&self, node: &Node) -> bool {
        let mut parameters = node.inputs.iter().skip(1).flatten();
        (node.is("RMSNormalization") || node.is("LayerNormalization"))
            && matches!(node.int("axis", -1), -1 | 3)
            && node.outputs.iter().skip(1).flatten().next().is_none()
            && parameters.all(|v| self.facts.get(*v).rank() == Some(1))
    }

    /// `[batch, sequence, heads · size]` for `last`, which is `value` `[batch, heads, sequence,
    /// size]` with the heads behind the sequence.
    fn merged(&mut self, value: ValueId, last: ValueId) -> Result<ValueId, String> {
        let shape = self.facts.shape(value).ok_or("unknown shape")?;
        let [batch, heads, sequence, size] = shape else {
            return Err(format!("\"{}\" has shape {shape:?}", self.graph.value(value).name));
        };
        let wanted = [batch.clone(), sequence.clone(), heads.mul(size)];
        if let Some(node) = self.graph.producer_node(last).filter(|n| n.is("Reshape")) {
            let source = node.input(0).ok_or("an input is absent")?;
            if self.facts.shape(source) == Some(&wanted) {
                return Ok(source);
            }
        }
        let hint = self.graph.value(last).name.clone();
        Ok(self.add_merge(&hint, last))
    }

    fn add_merge(&mut self, hint: &str, value: ValueId) -> ValueId {
        let target = self.graph.add_constant("merge_heads", int64s(&[0, 0, -1]));
        let hint = format!("{hint}/side_by_side");
        self.graph.add_op(&hint, Node::new("Reshape", vec![Some(value), Some(target)]))
    }

    /// `[batch, heads, sequence, size]` for `[batch, sequence, heads · size]`.
    fn on_own_axis(&mut self, value: ValueId, heads: i64, size: i64) -> ValueId {
        let target = self.graph.add_constant("split_heads", int64s(&[0, 0, heads, size]));
        let split =
            self.graph.add_op("heads", Node::new("Reshape", vec![Some(value), Some(target)]));
        let node = Node::new("Transpose", vec![Some(split)]).with("perm", vec![0, 2, 1, 3]);
        self.graph.add_op("heads", node)
    }

    /// Lets nodes that read the size of the present read those of the past and of what is new: the
    /// mask may depend on it, and the attention that writes the present depends on the mask.
    fn size_by_parts(&mut self, cached: &Cached) {
        let (Some(past), Some(present)) = (cached.past, cached.present) else { return };
        for (user, _) in self.graph.users(present) {
            let node = self.graph.node(user).clone();
            let Some(shape) = node.output(0).filter(|_| node.is("Shape")) else { continue };
            let axis = |name: &str, default: i64| {
                let axis = node.int(name, default);
                (if axis < 0 { axis + 4 } else { axis }).clamp(0, 4)
            };
            let (start, end) = (axis("start", 0), axis("end", 4));
            let grows: Vec<i64> = (start..end).map(|axis| i64::from(axis == 2)).collect();
            let grows = self.graph.add_constant("grows", int64s(&grows));
            let before = Node::new("Shape", vec![Some(past)]).with("start", start).with("end", end);
            let before = self.graph.add_op("past_size", before);
            let (source, at) = self.source_of_size(cached.new);
            let new = Node::new("Shape", vec![Some(source)]).with("start", at).with("end", at + 1);
            let new = self.graph.add_op("new_size", new);
            let new = self.graph.add_op("new_size", Node::new("Mul", vec![Some(new), Some(grows)]));
            let sum = Node::new("Add", vec![Some(before), Some(new)]);
            let sum = self.graph.add_op("present_size", sum);
            self.graph.replace_value(shape, sum);
        }
    }

    /// A value and an axis of it with as many positions as keys that are new: a graph input where
    /// there is one, as these need not be computed.
    fn source_of_size(&self, new: ValueId) -> (ValueId, i64) {
        let size = self.facts.get(new).dim(2).cloned();
        let inputs = self.graph.inputs.iter().flat_map(|input| {
            let shape = self.facts.shape(*input).unwrap_or_default().iter().enumerate();
            shape.map(|(axis, dim)| (*input, axis as i64, dim))
        });
        let mut fitting = inputs.filter(|(.., dim)| Some(*dim) == size.as_ref());
        fitting.next().map_or((new, 2), |(input, axis, _)| (input, axis))
    }

    /// Frees a value from the node that writes it, so that another can.
    fn detach(&mut self, value: ValueId) {
        if let Some((node, _)) = self.graph.producer(value) {
            self.graph.remove_node(node);
        }
    }
}
