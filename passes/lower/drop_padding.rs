//! Key padding masks that hide nothing go.

use planish_ir::Model;
use planish_kernels::DOMAIN;

use crate::pass::{PassContext, PassError};

/// Position of the padding mask among the inputs of `CachedAttention`.
const PADDING: usize = 3;

/// Takes the padding mask from every `planish.CachedAttention`: right only where no sequence of
/// the batch is padded.
pub(super) fn drop_padding(model: &mut Model, _: &mut PassContext) -> Result<usize, PassError> {
    let graph = &mut model.graph;
    let is_masked = |id: &_| {
        let node = graph.node(*id);
        node.is_of(DOMAIN, "CachedAttention") && node.input(PADDING).is_some()
    };
    let masked: Vec<_> = graph.node_ids().filter(is_masked).collect();
    for id in &masked {
        graph.set_input(*id, PADDING, None);
        graph.node_mut(*id).inputs.truncate(PADDING);
    }
    graph.remove_dead();
    Ok(masked.len())
}
