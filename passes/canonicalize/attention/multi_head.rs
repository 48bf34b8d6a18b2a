//! ONNX Runtime's `MultiHeadAttention`, whose keys have as many heads as its queries.

use planish_ir::{Node, ValueId};

use super::super::constants::int64s;
use super::super::contributed::Splitter;
use super::{MAX_HEADS, attention_node};
use crate::half::to_type;

/// From heads behind the sequence to heads in front of it, and back.
const SWAP: [i64; 4] = [0, 2, 1, 3];

impl Splitter<'_> {
    /// ONNX's attention. Where keys and values come from heads of their own, as those do that were
    /// repeated behind a cache, it has four axes, so that the cache is found; else three, and the cache
    /// that the node has.
    pub(in crate::canonicalize) fn multi_head(&mut self, node: &Node) -> Result<Node, String> {
        let projections = [0, 1, 2].map(|index| node.input(index));
        let [Some(q), Some(k), Some(v)] = projections else {
            return Err("its queries, keys and values are one value".into());
        };
        check(node)?;
        let (heads, scale) = self.heads_and_scale(node, [q, k, v])?;
        let is_causal = node.int("unidirectional", 0) != 0;
        let (mask, past) = (node.input(5), [node.input(6), node.input(7)]);
        let has_cache = past != [None, None];
        if is_causal && !has_cache && self.facts.get(k).dim(1) != self.facts.get(q).dim(1) {
            return Err("it is causal, and has other keys than queries".into());
        }
        let mask = mask.map(|mask| self.of_any_head(mask));
        let [q, k, v] = self.with_bias(node, [q, k, v])?;
        if let (Some(k), Some(v)) = (self.heads_behind(k, heads), self.heads_behind(v, heads))
            && !has_cache
            && !is_causal
        {
            let q = self.on_own_axis(node, q, heads);
            let y = Node::new("Attention", vec![Some(q), Some(k), Some(v), mask]);
            return Ok(self.side_by_side(node, y.with("scale", scale)));
        }
        let inputs = [Some(q), Some(k), Some(v), mask, past[0], past[1]];
        Ok(attention_node(inputs, heads, heads, scale, 0.0, is_causal))
    }

    /// The number of heads, and the factor on scores.
    fn heads_and_scale(&self, node: &Node, all: [ValueId; 3]) -> Result<(i64, f32), String> {
        if all.iter().any(|value| self.facts.get(*value).rank() != Some(3)) {
            return Err("its queries, keys and values do not have three axes each".into());
        }
        let (heads, width) = (node.int("num_heads", 0), self.width(all[0])?);
        if !(1..=MAX_HEADS).contains(&heads) || width <= 0 || width % heads != 0 {
            return Err(format!("its queries of {width} channels do not make {heads} heads"));
        }
        let scale = match node.float("scale", 0.0) {
            0.0 => 1.0 / ((width / heads) as f32).sqrt(),
            scale => scale,
        };
        Ok((heads, scale))
    }

    fn width(&self, value: ValueId) -> Result<i64, String> {
        let width = self.facts.get(value).dim(-1).and_then(|dim| dim.as_const());
        width.ok_or_else(|| "the width of its queries, keys or values is not known".into())
    }

    /// Queries, keys and values plus the parts of the bias that belong to them.
    fn with_bias(&mut self, node: &Node, all: [ValueId; 3]) -> Result<[ValueId; 3], String> {
        let Some(bias) = node.input(3) else { return Ok(all) };
        let bias = self.graph.constant(bias).ok_or("its bias is no constant")?.clone();
        let numbers = bias.to_f32_vec().map_err(|error| error.to_string())?;
        let mut rest = numbers.as_slice();
        let mut parts = Vec::new();
        for value in all {
            let width = usize::try_from(self.width(value)?).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at_checked(width).ok_or("its bias is too short")?;
            parts.push(to_type(bias.dtype(), &[width], part.to_vec()));
            rest = behind;
        }
        let mut sums = all;
        for (sum, part) in sums.iter_mut().zip(parts) {
            let part = self.graph.add_constant("bias", part);
            let add = Node::new("Add", vec![Some(*sum), Some(part)]);
            *sum = self.graph.add_op(&self.hint(node), add);
        }
        Ok(sums)
    }

    /// A mask before it was repeated for each head.
    fn of_any_head(&self, mask: ValueId) -> ValueId {
        let before = || {
            let tile = self.graph.producer_node(mask).filter(|node| node.is("Tile"))?;
            let repeats = self.graph.constant(tile.input(1)?)?.to_i64_vec().ok()?;
            let single = self.facts.get(tile.input(0)?).dim(1)?.as_const() == Some(1);
            let by_heads = matches!(repeats[..], [1, _, 1, 1]);
            tile.input(0).filter(|_| single && by_heads)
        };
        before().unwrap_or(mask)
    }

    /// The value `[batch, heads, keys, size]` whose heads were put side by side.
    fn heads_behind(&self, value: ValueId, heads: i64) -> Option<ValueId> {
        let merge = self.graph.producer_node(value).filter(|node| node.is("Reshape"))?;
        let swap = self.graph.producer_node(merge.input(0)?).filter(|node| node.is("Transpose"))?;
        let apart = swap.input(0).filter(|_| swap.ints("perm") == Some(&SWAP))?;
        let [batch, n, keys, size] = self.facts.shape(apart)? else { return None };
        let merged = [batch.clone(), keys.clone(), n.mul(size)];
        let same = n.as_const() == Some(heads) && self.facts.shape(value) == Some(&merged[..]);
        same.then_some(apart)
    }

    /// `[batch, sequence, heads · size]` to `[batch, heads, sequence, size]`.
    fn on_own_axis(&mut self, node: &Node, value: ValueId, heads: i64) -> ValueId {
        let shape = self.graph.add_constant("shape", int64s(&[0, 0, heads, -1]));
        let apart = Node::new("Reshape", vec![Some(value), Some(shape)]);
        let apart = self.graph.add_op(&self.hint(node), apart);
        let swap = Node::new("Transpose", vec![Some(apart)]).with("perm", SWAP.to_vec());
        self.graph.add_op(&self.hint(node), swap)
    }

    /// The last step from the result of `attention` to heads side by side.
    fn side_by_side(&mut self, node: &Node, mut attention: Node) -> Node {
        if !node.name.is_empty() {
            attention.name = format!("{}/attention", node.name);
        }
        let y = self.graph.add_op(&self.hint(node), attention);
        let swap = Node::new("Transpose", vec![Some(y)]).with("perm", SWAP.to_vec());
        let swapped = self.graph.add_op(&self.hint(node), swap);
        let shape = self.graph.add_constant("shape", int64s(&[0, 0, -1]));
        Node::new("Reshape", vec![Some(swapped), Some(shape)])
    }
}

/// Forms that ONNX's operator has no word for.
fn check(node: &Node) -> Result<(), String> {
    let given = |index: usize| node.input(index).is_some();
    if given(4) || given(8) || given(9) || node.outputs.iter().skip(3).any(Option::is_some) {
        return Err("it has a mask of keys or lengths of its cache, or gives its scores".into());
    }
    if given(6) != given(7) {
        return Err("it has a cache of keys or values alone".into());
    }
    if !given(6) && node.outputs.iter().skip(1).any(Option::is_some) {
        return Err("it begins a cache".into());
    }
    Ok(())
}
