//! Versions of ONNX's operator set.

use planish_ir::{Model, Node};

use super::EmitError;
use super::used::all_nodes;

/// The version that is written unless another one is asked for: the first with `Attention`,
/// `RMSNormalization` and `RotaryEmbedding`, and one that ONNX Runtime runs.
pub const EMITTED_OPSET: i64 = 23;
/// The newest version whose operators are known here.
const NEWEST: i64 = 24;

/// Checks that the model can be brought to `opset` without a change of old operators' meaning.
pub(super) fn check_version(model: &Model, opset: i64) -> Result<(), EmitError> {
    let fail = |reason: String| Err(EmitError::Opset { opset, reason });
    let own = model.opset("").unwrap_or(1);
    if !(EMITTED_OPSET..=NEWEST).contains(&opset) {
        return fail(format!("only {EMITTED_OPSET} to {NEWEST} can"));
    }
    if own < EMITTED_OPSET {
        return fail(format!(
            "the model is of version {own} and was not brought to canonical form"
        ));
    }
    if own > NEWEST {
        return fail(format!("the model is of version {own}, which is newer than {NEWEST}"));
    }
    Ok(())
}

/// Checks that every node exists in `opset`.
pub(super) fn check_nodes(model: &Model, opset: i64) -> Result<(), EmitError> {
    let too_new = all_nodes(&model.graph).into_iter().find(|node| needed_opset(node) > opset);
    too_new.map_or(Ok(()), |node| {
        Err(EmitError::TooNew { node: node.describe(), needs: needed_opset(node), opset })
    })
}

/// The version that brought the operator or the inputs that the node uses, where that is above
/// [`EMITTED_OPSET`]; 0 for the others.
fn needed_opset(node: &Node) -> i64 {
    let new_input = node.is("Attention") && node.input(6).is_some();
    let new_operator = node.is("Swish") || node.is("TensorScatter");
    if new_input || new_operator { 24 } else { 0 }
}

/// The lowest version, but 21, that has every operator of ONNX's own in the main graph.
pub(super) fn lowest(model: &Model) -> i64 {
    let needs = |node: &&Node| {
        let first = ["Attention", "RMSNormalization", "RotaryEmbedding"];
        let of_23 = first.iter().any(|op| node.is(op));
        needed_opset(node).max(if of_23 { EMITTED_OPSET } else { 21 })
    };
    all_nodes(&model.graph).iter().map(needs).max().unwrap_or(21)
}
