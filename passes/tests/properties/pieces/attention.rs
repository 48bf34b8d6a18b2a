//! Attention written out, and rotary embeddings.

use planish_ir::{Tensor, ValueId};

use super::shapes::{merge, split};
use crate::builder::Builder;

const HEADS: usize = 2;
const HEAD_SIZE: usize = 4;

fn projected(b: &mut Builder, x: ValueId, k: usize) -> ValueId {
    let weight = b.weight("projection", &[k, HEADS * HEAD_SIZE], 1.0 / (k as f64).sqrt());
    let product = b.op("MatMul", &[x, weight]);
    split(b, product, HEADS, HEAD_SIZE)
}

/// Attention of two heads over the value itself, scaled here or there, not causal.
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
    let weights = b.node("Softmax", &[scores], |node| node.with("axis", -1i64));
    let heads = b.op("MatMul", &[weights, v]);
    Some(merge(b, heads))
}

/// x · cos + rotate_half(x) · sin, with the same angles at every position.
fn rotate(b: &mut Builder, x: ValueId) -> ValueId {
    let angles: Vec<f32> = (0..HEAD_SIZE).map(|i| 0.3 + (i % (HEAD_SIZE / 2)) as f32).collect();
    let table = |f: fn(f32) -> f32| {
        Tensor::from_vec(&[HEAD_SIZE], angles.iter().map(|a| f(*a)).collect::<Vec<f32>>())
    };
    let (cos, sin) = (b.constant("cos", table(f32::cos)), b.constant("sin", table(f32::sin)));
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
