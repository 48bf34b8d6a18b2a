//! Quantising keys and values.

use planish_ir::{Graph, Node};
use planish_kernels::DOMAIN;

use super::{Clip, QuantizeError};
use crate::sites::AttentionSite;

/// Puts `QuantizeDequantizeHeads` before the keys (after rotary embedding and P_h) and the values
/// of an attention: what the cache holds lies on a grid of `bits` bits per token and head, whose
/// range is clipped by `clips` for keys and for values.
pub(super) fn quantize_cache(
    graph: &mut Graph,
    attention: &AttentionSite,
    bits: u8,
    clips: [Clip; 2],
) -> Result<(), QuantizeError> {
    let sizes = [attention.head_size, attention.v_head_size];
    for (i, (head_size, clip)) in sizes.into_iter().zip(clips).enumerate() {
        let index = i + 1;
        if !clip.is_valid() {
            let place = graph.node(attention.node).describe();
            return Err(QuantizeError::Clip { place, clip });
        }
        let Some(x) = graph.node(attention.node).input(index) else { continue };
        let node = Node::new("QuantizeDequantizeHeads", vec![Some(x)])
            .with_domain(DOMAIN)
            .with("head_size", head_size as i64)
            .with("bits", i64::from(bits))
            .with("clip_min", clip.min)
            .with("clip_max", clip.max);
        let name = format!("{}_rounded", graph.value(x).name);
        let rounded = graph.add_op(&name, node);
        graph.set_input(attention.node, index, Some(rounded));
    }
    Ok(())
}
