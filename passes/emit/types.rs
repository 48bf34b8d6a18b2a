//! Types of results of planish's operators.

use planish_ir::{Model, ValueId};
use planish_kernels::DOMAIN;
use planish_kernels::infer::infer;

use super::EmitError;

/// Declares element types and shapes of what planish's operators give, as far as they are known:
/// runtimes infer less through the functions' bodies, and ONNX's own inference of `Attention`
/// takes an unknown number of channels for zero. Returns how many values were declared.
pub(super) fn declare_results(model: &mut Model) -> Result<usize, EmitError> {
    let facts = infer(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    let graph = &mut model.graph;
    let own = graph.node_ids().map(|id| graph.node(id)).filter(|node| node.domain == DOMAIN);
    let results: Vec<ValueId> =
        own.flat_map(|node| node.outputs.iter().flatten().copied()).collect();
    for id in &results {
        let fact = facts.get(*id);
        let value = graph.value_mut(*id);
        if fact.dtype.is_some() && fact.shape.is_some() {
            (value.ty, value.declared) = (fact.to_type(), true);
        }
    }
    Ok(results.len())
}
