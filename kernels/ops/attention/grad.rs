//! The gradient rule of `Attention`.

use planish_ir::{Dim, Node, ValueId};

use super::dense;
use crate::ops::support::heads;
use crate::{DOMAIN, GradNode, GradScope, OpError};

/// The attributes that `AttentionGrad` has of `Attention`'s.
const ATTRIBUTES: [&str; 7] = [
    "q_num_heads",
    "kv_num_heads",
    "scale",
    "softcap",
    "is_causal",
    "left_window_size",
    "right_window_size",
];

/// One `AttentionGrad`, for attention without a past whose present keys and values go nowhere.
pub(super) fn grad(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let refuse = |what: &str| Err(OpError::unsupported(format!("no gradient {what}")));
    let has = |i: usize| node.op.node.input(i).is_some();
    if has(4) || has(5) {
        return refuse("through attention over past keys and values");
    }
    if has(6) {
        return refuse("through attention with lengths of sequences");
    }
    if (1..4).any(|i| node.of_output(i).is_some()) {
        return refuse("through the present keys and values or the scores of attention");
    }
    if node.wants(3) {
        return refuse("of the mask of attention");
    }
    let mut gradients = node.nothing();
    let Some(dy) = node.of_output(0) else { return Ok(gradients) };
    let mut inputs = vec![Some(dy)];
    inputs.extend([0, 1, 2].map(|i| node.op.node.input(i)));
    inputs.extend(node.op.node.input(3).map(Some));
    let mut grad = Node::new("AttentionGrad", inputs).with_domain(DOMAIN);
    for name in ATTRIBUTES {
        if let Some(value) = node.op.node.attributes.get(name) {
            grad = grad.with(name, value.clone());
        }
    }
    // Written out, since the function body of the gradient does not know the size of a head.
    let q_heads = node.op.node.int("q_num_heads", 0);
    let dims = heads::dims(&scope.fact(node.input(0)?), q_heads)?;
    if let Some(size) = dims.and_then(|[_, _, _, size]| Dim::as_usize(&size)) {
        grad = grad.with("scale", dense::scale(&node.op, size));
    }
    let outputs = scope.node_n("grad_attention", grad, 3)?;
    gradients.iter_mut().zip(outputs).for_each(|(slot, value)| *slot = Some(value));
    Ok(gradients)
}
