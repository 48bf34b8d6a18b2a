//! Quantising keys and values.

use planish_ir::{Graph, Node};
use planish_kernels::DOMAIN;

use crate::sites::AttentionSite;

/// Puts `QuantizeDequantizeHeads` before the keys (after rotary embedding and P_h) and the values
/// of an attention: what the cache holds lies on a grid of `bits` bits per token and head.
pub(super) fn quantize_cache(graph: &mut Graph, attention: &AttentionSite, bits: u8) {
    for (index, head_size) in [(1, attention.head_size), (2, attention.v_head_size)] {
        let Some(x) = graph.node(attention.node).input(index) else { continue };
        let node = Node::new("QuantizeDequantizeHeads", vec![Some(x)])
            .with_domain(DOMAIN)
            .with("head_size", head_size as i64)
            .with("bits", i64::from(bits))
            .with("clip_min", 1.0f32)
            .with("clip_max", 1.0f32);
        let name = format!("{}_rounded", graph.value(x).name);
        let rounded = graph.add_op(&name, node);
        graph.set_input(attention.node, index, Some(rounded));
    }
}
