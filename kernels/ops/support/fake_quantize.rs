//! What the differentiable quantisers share: factors that clip as inputs, facts, the gradient rule.

use planish_ir::{DataType, Node, Tensor, ValueId};

use super::facts;
use super::quant::Quantiser;
use crate::grad::{GradNode, GradScope};
use crate::{DOMAIN, Fact, OpError, OpNode};

/// The attribute `bits` with the factors `clip_max` and `clip_min`, tensors of one element.
pub(in crate::ops) fn quantiser(
    op: &OpNode,
    clip_max: &Tensor,
    clip_min: &Tensor,
) -> Result<Quantiser, OpError> {
    let (clip_max, clip_min) = (single(clip_max)?, single(clip_min)?);
    Ok(Quantiser { clip_min, clip_max, ..Quantiser::read(op)? })
}

fn single(clip: &Tensor) -> Result<f32, OpError> {
    match *clip.to_f32_vec()?.as_slice() {
        [clip] => Ok(clip),
        _ => Err(OpError::shape(format!("a clip of shape {:?} is not one number", clip.shape()))),
    }
}

/// Facts of a quantiser's output: type and shape of its first input, which is f32.
pub(in crate::ops) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Quantiser::read(op)?;
    for index in 0..3 {
        facts::of_type("an input", facts::required(inputs, index)?, &[DataType::F32])?;
    }
    facts::same_as_first(inputs)
}

/// Facts of the gradients of dY, X, clip_max, clip_min: those of the last three.
pub(in crate::ops) fn infer_grad(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    Quantiser::read(op)?;
    for index in 0..4 {
        facts::of_type("an input", facts::required(inputs, index)?, &[DataType::F32])?;
    }
    let rank = inputs[1].rank().unwrap_or(0) as i64;
    for axis in 0..rank {
        facts::same_size("an axis of a gradient", inputs[1].dim(axis), inputs[0].dim(axis))?;
    }
    Ok(inputs[1..4].iter().map(facts::like).collect())
}

/// Fails unless a gradient has the shape of what it belongs to.
pub(in crate::ops) fn check_gradient(dy: &Tensor, x: &Tensor) -> Result<(), OpError> {
    if dy.shape() == x.shape() {
        return Ok(());
    }
    Err(OpError::shape(format!("a gradient {:?} of values {:?}", dy.shape(), x.shape())))
}

/// The gradient rule of a quantiser with the inputs X, clip_max, clip_min: a node `op_type` with
/// its attributes.
pub(in crate::ops) fn grad(
    scope: &mut GradScope,
    node: &GradNode,
    op_type: &str,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let inputs = vec![Some(dy), Some(node.input(0)?), Some(node.input(1)?), Some(node.input(2)?)];
    let mut gradient = Node::new(op_type, inputs).with_domain(DOMAIN);
    gradient.attributes = node.op.node.attributes.clone();
    Ok(scope.node_n("grad_fake_quantize", gradient, 3)?.into_iter().map(Some).collect())
}
