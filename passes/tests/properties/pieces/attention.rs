//! Attention written out, and rotary embeddings.

use planish_ir::{Dim, Tensor, ValueId};

use super::shapes::{merge, split};
use crate::builder::Builder;

const HEADS: usize = 2;
const HEAD_SIZE: usize = 4;
/// Rows of the tables of angles.
const N_POSITIONS: usize = 16;

fn projected(b: &mut Builder, x: ValueId, k: usize) -> ValueId {
    let weight = b.weight("projection", &[k, HEADS * HEAD_SIZE], 1.0 / (k as f64).sqrt());
    let product = b.op("MatMul", &[x, weight]);
    split(b, product, HEADS, HEAD_SIZE)
}

/// What is added to scores so that queries see no later key, `[S, S]`, from the shape of `x`.
fn causal_mask(b: &mut Builder, x: ValueId) -> ValueId {
    let shape = b.op("Shape", &[x]);
    let [index, zero, one] = [1i64, 0, 1].map(|i| b.constant("index", Tensor::scalar(i)));
    let length = b.node("Gather", &[shape, index], |node| node.with("axis", 0i64));
    let positions = b.op("Range", &[zero, length, one]);
    let (first, second) = (b.ints(&[0]), b.ints(&[1]));
    let keys = b.op("Unsqueeze", &[positions, first]);
    let queries = b.op("Unsqueeze", &[positions, second]);
    let is_seen = b.op("LessOrEqual", &[keys, queries]);
    let low = b.pick(&[f32::NEG_INFINITY, f32::MIN, -1e9]);
    let (seen, hidden) = (b.number(0.0), b.number(low));
    b.op("Where", &[is_seen, seen, hidden])
}

/// Attention of two heads over the value itself, scaled here or there, causal or not.
pub fn attention(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let k = b.channels(x).filter(|_| b.rank(x) == 3)?;
    let [mut q, mut k, v] = [0; 3].map(|_| projected(b, x, k));
    if b.below(2) == 0 {
        (q, k) = (rotate(b, q), rotate(b, k));
    }
    let perm = |node: planish_ir::Node| node.with("perm", vec![0i64, 1, 3, 2]);
    let transposed = b.node("Transpose", &[k], perm);
    let scale = b.number(0.5);
    let scaled_before = b.below(2) == 0;
    let q = if scaled_before { b.op("Mul", &[q, scale]) } else { q };
    let mut scores = b.op("MatMul", &[q, transposed]);
    if !scaled_before {
        scores = b.op("Mul", &[scores, scale]);
    }
    if b.below(2) == 0 {
        let mask = causal_mask(b, x);
        scores = b.op("Add", &[scores, mask]);
    }
    let weights = b.node("Softmax", &[scores], |node| node.with("axis", -1i64));
    let heads = b.op("MatMul", &[weights, v]);
    Some(merge(b, heads))
}

/// x · cos + rotate_half(x) · sin, with angles by position or the same at every position.
fn rotate(b: &mut Builder, x: ValueId) -> ValueId {
    let shape = b.shape(x);
    let has_positions = shape[0] == Dim::symbol("B") && shape[2] == Dim::symbol("S");
    let [cos, sin] = if has_positions {
        by_position(b)
    } else {
        let angles: Vec<f32> = (0..HEAD_SIZE).map(|i| angle(0, i % (HEAD_SIZE / 2))).collect();
        let angles = Tensor::from_vec(&[HEAD_SIZE], angles);
        let angles = b.constant("angles", angles);
        ["Cos", "Sin"].map(|op| b.op(op, &[angles]))
    };
    let half = HEAD_SIZE as i64 / 2;
    let (zero, middle, end, axis) =
        (b.ints(&[0]), b.ints(&[half]), b.ints(&[i64::MAX]), b.ints(&[3]));
    let first = b.op("Slice", &[x, zero, middle, axis]);
    let second = b.op("Slice", &[x, middle, end, axis]);
    let negated = b.op("Neg", &[second]);
    let turned = b.node("Concat", &[negated, first], |node| node.with("axis", -1i64));
    let (along, across) = (b.op("Mul", &[x, cos]), b.op("Mul", &[turned, sin]));
    b.op("Add", &[along, across])
}

fn angle(position: usize, channel: usize) -> f32 {
    (1 + position) as f32 * (0.3 + channel as f32)
}

/// Cosines and sines of angles that the positions choose, `[B, 1, S, size]`.
fn by_position(b: &mut Builder) -> [ValueId; 2] {
    let half = HEAD_SIZE / 2;
    let angles = (0..N_POSITIONS * half).map(|i| angle(i / half, i % half)).collect::<Vec<f32>>();
    let table = b.constant("angles", Tensor::from_vec(&[N_POSITIONS, half], angles));
    let half = b.op("Gather", &[table, b.positions]);
    let whole = b.node("Concat", &[half, half], |node| node.with("axis", -1i64));
    let axes = b.ints(&[1]);
    ["Cos", "Sin"].map(|op| {
        let rows = b.op(op, &[whole]);
        b.op("Unsqueeze", &[rows, axes])
    })
}

/// A rotary embedding alone.
pub fn rotated(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let is_heads = b.rank(x) == 4 && b.channels(x) == Some(HEAD_SIZE);
    if is_heads {
        return Some(rotate(b, x));
    }
    b.channels(x).filter(|n| *n == HEADS * HEAD_SIZE && b.rank(x) == 3)?;
    let heads = split(b, x, HEADS, HEAD_SIZE);
    let turned = rotate(b, heads);
    Some(merge(b, turned))
}
