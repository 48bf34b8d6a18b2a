//! Operators that move elements.

use planish_ir::{Node, ValueId};

use crate::builder::Builder;

fn heads_first(node: Node) -> Node {
    node.with("perm", vec![0i64, 2, 1, 3])
}

/// `[B, S, heads · size]` as `[B, heads, S, size]`.
pub fn split(b: &mut Builder, x: ValueId, heads: usize, size: usize) -> ValueId {
    let first = if b.below(2) == 0 { [0, 0] } else { [0, -1] };
    let shape = b.ints(&[first[0], first[1], heads as i64, size as i64]);
    let apart = b.op("Reshape", &[x, shape]);
    b.node("Transpose", &[apart], heads_first)
}

/// The reverse of [`split`].
pub fn merge(b: &mut Builder, x: ValueId) -> ValueId {
    let back = b.node("Transpose", &[x], heads_first);
    let shape = b.ints(&[0, 0, -1]);
    b.op("Reshape", &[back, shape])
}

pub fn split_heads(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let n = b.channels(x).filter(|n| n % 4 == 0 && b.rank(x) == 3)?;
    Some(split(b, x, n / 4, 4))
}

pub fn merge_heads(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    b.channels(x).filter(|_| b.rank(x) == 4)?;
    Some(merge(b, x))
}

/// The halves of the channels in another order.
pub fn reordered(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    b.channels(x).filter(|n| n % 2 == 0)?;
    let parts =
        b.nodes("Split", &[x], 2, |node| node.with("axis", -1i64).with("num_outputs", 2i64));
    let negated = b.op("Neg", &[parts[1]]);
    let second = if b.below(2) == 0 { negated } else { parts[1] };
    let axis = b.rank(x) as i64 - 1;
    Some(b.node("Concat", &[second, parts[0]], |node| node.with("axis", axis)))
}

/// Two steps that cancel.
pub fn there_and_back(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let rank = b.rank(x) as i64;
    Some(match b.below(3) {
        0 => {
            let perm: Vec<i64> = (0..rank).rev().collect();
            let turned = b.node("Transpose", &[x], |node| node.with("perm", perm.clone()));
            let turned = b.op("Tanh", &[turned]);
            b.node("Transpose", &[turned], |node| node.with("perm", perm))
        }
        1 => {
            let axes = b.ints(&[1]);
            let longer = b.op("Unsqueeze", &[x, axes]);
            b.op("Squeeze", &[longer, axes])
        }
        _ => {
            let n = b.channels(x).filter(|n| n % 2 == 0)? as i64;
            let zeros = vec![0; rank as usize - 1];
            let apart = b.ints(&[zeros.clone(), vec![2, n / 2]].concat());
            let together = b.ints(&[zeros, vec![n]].concat());
            let apart = b.op("Reshape", &[x, apart]);
            b.op("Reshape", &[apart, together])
        }
    })
}

/// Some of the channels.
pub fn sliced(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let n = b.channels(x).filter(|n| *n >= 4)? as i64;
    let (start, end, step) =
        b.pick(&[(0, n, 1), (0, n / 2, 1), (n / 2, n, 1), (0, n, 2), (-1, -n - 1, -1)]);
    let inputs = [b.ints(&[start]), b.ints(&[end]), b.ints(&[-1]), b.ints(&[step])];
    Some(b.op("Slice", &[[x].as_slice(), &inputs].concat()))
}

/// Broadcast along an axis of one element, or to the size that it has.
pub fn expanded(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let shape = b.op("Shape", &[x]);
    if b.below(2) == 0 {
        return Some(b.op("Expand", &[x, shape]));
    }
    b.channels(x)?;
    let axis = b.ints(&[-1]);
    let narrow = b.node("ReduceMax", &[x, axis], |node| node.with("keepdims", 1i64));
    Some(b.op("Expand", &[narrow, shape]))
}

/// A Reshape to sizes that are looked up one by one, as TorchScript writes it.
pub fn reshaped_by_its_shape(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    b.channels(x).filter(|_| b.rank(x) == 3)?;
    let shape = b.op("Shape", &[x]);
    let mut sizes = Vec::new();
    for axis in 0..2 {
        let index = b.constant("index", planish_ir::Tensor::scalar(axis as i64));
        let size = b.node("Gather", &[shape, index], |node| node.with("axis", 0i64));
        let axes = b.ints(&[0]);
        sizes.push(b.op("Unsqueeze", &[size, axes]));
    }
    let rest = b.ints(&[2, -1]);
    sizes.push(rest);
    let shape = b.node("Concat", &sizes, |node| node.with("axis", 0i64));
    let apart = b.op("Reshape", &[x, shape]);
    let activated = b.op("Tanh", &[apart]);
    let together = b.ints(&[0, 0, -1]);
    Some(b.op("Reshape", &[activated, together]))
}

/// Channels in an order that a constant says.
pub fn gathered(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let n = b.channels(x)? as i64;
    let order: Vec<i64> = (0..n).map(|i| (i * 3 + 1) % n).collect();
    let order = b.ints(&order);
    Some(b.node("Gather", &[x, order], |node| node.with("axis", -1i64)))
}
