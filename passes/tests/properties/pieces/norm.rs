//! Norms and other reductions.

use planish_ir::ValueId;

use crate::builder::Builder;

fn mean(b: &mut Builder, x: ValueId) -> ValueId {
    let axis = b.ints(&[-1]);
    b.node("ReduceMean", &[x, axis], |node| node.with("keepdims", 1i64))
}

fn square(b: &mut Builder, x: ValueId) -> ValueId {
    if b.below(2) == 0 {
        return b.op("Mul", &[x, x]);
    }
    let two = b.number(2.0);
    b.op("Pow", &[x, two])
}

/// x / √(mean(x²) + ε).
fn normal(b: &mut Builder, x: ValueId) -> ValueId {
    let squared = square(b, x);
    let (variance, epsilon) = (mean(b, squared), b.number(1e-3));
    let sum = b.op("Add", &[variance, epsilon]);
    let root = b.op("Sqrt", &[sum]);
    match b.below(3) {
        0 => b.op("Div", &[x, root]),
        1 => {
            let factor = b.op("Reciprocal", &[root]);
            b.op("Mul", &[x, factor])
        }
        _ => {
            let one = b.number(1.0);
            let factor = b.op("Div", &[one, root]);
            b.op("Mul", &[x, factor])
        }
    }
}

pub fn root_mean_square(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let n = b.channels(x)?;
    let (normal, weight) = (normal(b, x), b.weight("scale", &[n], 1.0));
    Some(if b.below(2) == 0 {
        b.op("Mul", &[normal, weight])
    } else {
        b.op("Mul", &[weight, normal])
    })
}

/// A layer norm written out.
pub fn layer(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let n = b.channels(x)?;
    let mean = mean(b, x);
    let centred = b.op("Sub", &[x, mean]);
    let normal = normal(b, centred);
    let (weight, bias) = (b.weight("scale", &[n], 1.0), b.weight("shift", &[n], 1.0));
    let scaled = b.op("Mul", &[normal, weight]);
    Some(b.op("Add", &[scaled, bias]))
}

pub fn layer_operator(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    let n = b.channels(x)?;
    let (weight, bias) = (b.weight("scale", &[n], 1.0), b.weight("shift", &[n], 1.0));
    Some(b.node("LayerNormalization", &[x, weight, bias], |node| {
        node.with("axis", -1i64).with("epsilon", 1e-3f32)
    }))
}

/// A reduction, which the value itself is added to.
pub fn reduced(b: &mut Builder, x: ValueId) -> Option<ValueId> {
    b.channels(x)?;
    let axis = b.pick(&[-1, b.rank(x) as i64 - 1]);
    let (op, axes) =
        (b.pick(&["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"]), b.ints(&[axis]));
    let kept = b.node(op, &[x, axes], |node| node.with("keepdims", 1i64));
    if b.below(2) == 0 {
        return Some(b.op("Sub", &[x, kept]));
    }
    let gone = b.node(op, &[x, axes], |node| node.with("keepdims", 0i64));
    let back = b.op("Unsqueeze", &[gone, axes]);
    Some(b.op("Add", &[back, x]))
}
