//! com.microsoft's `GroupQueryAttention`: rotary embedding, key-value cache and causal attention
//! in one operator. Sequences of different lengths are padded on the right: sequence b has
//! `seqlens_k[b] + 1` keys after this call.

use planish_ir::{Dim, Tensor};

use super::support::facts;
use crate::op::{optional, required};
use crate::{Fact, MICROSOFT, OpDef, OpError, OpNode};

mod eval;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] =
    &[OpDef::new("GroupQueryAttention", infer, eval::eval).in_domain(MICROSOFT)];

/// The attributes that count.
struct Spec {
    q_heads: usize,
    kv_heads: usize,
    /// Factor on the scores; `None` for 1/√d.
    scale: Option<f32>,
    softcap: f32,
    /// Keys that a query sees, itself included; `None` for all.
    window: Option<usize>,
    rotary: bool,
    interleaved: bool,
}

impl Spec {
    fn new(op: &OpNode) -> Result<Self, OpError> {
        let node = op.node;
        let count = |name| match usize::try_from(node.int(name, 0)) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(OpError::unsupported(format!("attribute {name} must be positive"))),
        };
        let (q_heads, kv_heads) = (count("num_heads")?, count("kv_num_heads")?);
        if q_heads % kv_heads != 0 {
            return Err(OpError::unsupported("num_heads is no multiple of kv_num_heads"));
        }
        let window = match node.int("local_window_size", -1) {
            0 => return Err(OpError::unsupported("local_window_size 0 leaves no key to see")),
            n => usize::try_from(n).ok(),
        };
        Ok(Self {
            q_heads,
            kv_heads,
            scale: Some(node.float("scale", 0.0)).filter(|scale| *scale != 0.0),
            softcap: node.float("softcap", 0.0),
            window,
            rotary: node.int("do_rotary", 0) != 0,
            interleaved: node.int("rotary_interleaved", 0) != 0,
        })
    }
}

/// Refuses the forms that are not computed here; their shapes are known all the same.
fn check_form(op: &OpNode, given: impl Fn(usize) -> bool) -> Result<(), OpError> {
    let node = op.node;
    let quantised = |name| !matches!(node.str(name, "NONE"), "NONE" | "");
    if node.int("smooth_softmax", 0) > 0
        || (11..=13).any(given)
        || quantised("k_quant_type")
        || quantised("v_quant_type")
        || node.int("qk_output", 0) > 0
    {
        return Err(OpError::unsupported(
            "GroupQueryAttention with smooth softmax, head sinks, quantised caches or score output",
        ));
    }
    Ok(())
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let spec = Spec::new(op)?;
    let query = facts::required(inputs, 0)?;
    let unknown = || Fact::new(query.dtype, None);
    let Some([b, s, width]) = query.shape.as_deref() else {
        return Ok((0..op.n_outputs()).map(|_| unknown()).collect());
    };
    let is_packed = facts::optional(inputs, 1).is_none();
    let n_heads = spec.q_heads + if is_packed { 2 * spec.kv_heads } else { 0 };
    let size = width
        .div_exact(&Dim::from(n_heads))
        .ok_or_else(|| OpError::shape(format!("{width} channels do not make {n_heads} heads")))?;
    let y = vec![b.clone(), s.clone(), size.mul(&Dim::from(spec.q_heads))];
    let present =
        present_length(inputs).map(|n| vec![b.clone(), Dim::from(spec.kv_heads), n, size.clone()]);
    let present = Fact::new(query.dtype, present);
    let outputs = [Fact::new(query.dtype, Some(y)), present.clone(), present];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}

/// The longer of the past's buffer and the total length.
fn present_length(inputs: &[Fact]) -> Option<Dim> {
    let total = facts::optional(inputs, 6)?.dims.as_ref()?.first()?.clone();
    match facts::optional(inputs, 3) {
        Some(past) => Some(past.dim(2)?.maximum(&total)),
        None => Some(total),
    }
}
