//! Products with weights, and of two values.

use planish_ir::ValueId;

use crate::builder::Builder;

/// A weight of `k` input channels that keeps the size of what it multiplies.
fn matrix(b: &mut Builder, k: usize, n: usize) -> ValueId {
    b.weight("weight", &[k, n], 1.0 / (k as f64).sqrt())
}

fn width(b: &mut Builder) -> usize {
    b.pick(&[4, 8, 8, 8, 12, 16])
}

/// MatMul, or of a stored transpose, with or without bias.
pub fn linear(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let (k, n) = (b.channels(x)?, width(b));
    let weight = if b.below(2) == 0 {
        matrix(b, k, n)
    } else {
        let stored = matrix(b, n, k);
        b.node("Transpose", &[stored], |node| node.with("perm", vec![1i64, 0]))
    };
    let product = b.op("MatMul", &[x, weight]);
    let bias = b.weight("bias", &[n], 1.0);
    Some(match b.below(3) {
        0 => product,
        1 => b.op("Add", &[product, bias]),
        _ => b.op("Add", &[bias, product]),
    })
}

/// Gemm on rows, as TorchScript exports write linear layers of GPT-2.
pub fn gemm(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let (k, n) = (b.channels(x)?, width(b));
    let rows = b.ints(&[-1, k as i64]);
    let flat = b.op("Reshape", &[x, rows]);
    let transposed = b.below(2) == 0;
    let weight = if transposed { matrix(b, n, k) } else { matrix(b, k, n) };
    let bias = b.weight("bias", &[n], 1.0);
    let (alpha, beta) = b.pick(&[(1.0f32, 1.0f32), (0.5, 1.0), (1.0, 2.0)]);
    let product = b.node("Gemm", &[flat, weight, bias], |node| {
        let node = node.with("alpha", alpha).with("beta", beta);
        if transposed { node.with("transB", 1i64) } else { node }
    });
    let shape = b.op("Shape", &[x]);
    let last = b.rank(x) as i64 - 1;
    let (start, end, axis) = (b.ints(&[0]), b.ints(&[last]), b.ints(&[0]));
    let leading = b.op("Slice", &[shape, start, end, axis]);
    let n = b.ints(&[n as i64]);
    let shape = b.node("Concat", &[leading, n], |node| node.with("axis", 0i64));
    Some(b.op("Reshape", &[product, shape]))
}

/// x · yᵀ · y, scaled.
pub fn product_of_two(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let y = b.like(x);
    let rank = b.rank(x);
    b.channels(x).filter(|_| rank >= 3)?;
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 2, rank - 1);
    let transposed = b.node("Transpose", &[y], |node| node.with("perm", perm));
    let scores = b.op("MatMul", &[x, transposed]);
    let scores = b.node("Softmax", &[scores], |node| node.with("axis", -1i64));
    Some(b.op("MatMul", &[scores, y]))
}

/// One product whose parts go different ways, by Split or by Slices.
pub fn fused(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let k = b.channels(x)?;
    let (first, second) = (b.pick(&[4usize, 8]), 8);
    let weight = matrix(b, k, first + second);
    let product = b.op("MatMul", &[x, weight]);
    let sizes = [first as i64, second as i64];
    let parts = if b.below(2) == 0 {
        let sizes = b.ints(&sizes);
        b.nodes("Split", &[product, sizes], 2, |node| node.with("axis", -1i64))
    } else {
        let (axis, zero, middle) = (b.ints(&[-1]), b.ints(&[0]), b.ints(&sizes[..1]));
        let end = b.ints(&[i64::MAX]);
        let left = b.op("Slice", &[product, zero, middle, axis]);
        vec![left, b.op("Slice", &[product, middle, end, axis])]
    };
    let activated = b.op("Sigmoid", &[parts[0]]);
    b.pool.push(activated);
    Some(b.op("Tanh", &[parts[1]]))
}
