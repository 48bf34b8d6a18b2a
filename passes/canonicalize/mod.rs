//! Canonicalisation: exports of all kinds lifted to one vocabulary, ONNX's own newest operators.
//!
//! Exporters spell a norm, a rotary embedding, attention in a dozen ways; after these passes
//! there is one. What is not recognised stays as it is, and still runs.

mod activation;
mod attention;
mod cache_branch;
mod constants;
mod contributed;
mod cse;
mod linear;
mod mask;
mod no_ops;
mod norm;
mod opset;
mod projection;
mod quantized;
mod reshape;
mod rotary;
mod sequences;
mod sizes;
mod split;
mod tied;
mod transform;
mod weight_inputs;
mod widen;

use planish_ir::Model;

use crate::inline::{inline_branches, inline_functions};
use crate::pass::{Pass, PassError, PassManager};

pub use mask::{MaskForm, classify_mask};
pub use opset::CANONICAL_OPSET;
pub(crate) use opset::upgrade_opset as raise_opset;

/// The pass from which on the model is of [`CANONICAL_OPSET`].
const RAISING: &str = "upgrade_opset";

/// The canonicalising passes, in order.
pub fn passes() -> Vec<Pass> {
    vec![
        // Weights that a caller could replace are weights…
        Pass { name: "settle_weight_inputs", run: weight_inputs::settle_weight_inputs },
        // …and functions go first, so that no rule need look into functions and branches…
        Pass { name: "inline_functions", run: inline_functions },
        Pass { name: "settle_cache_branch", run: cache_branch::settle_cache_branch },
        Pass { name: "inline_branches", run: inline_branches },
        // …and every one sees constants in one form…
        Pass { name: "inline_constants", run: constants::inline_constants },
        // …and axes as inputs, whatever the version of the operator set.
        Pass { name: RAISING, run: opset::upgrade_opset },
        // What ONNX Runtime fused comes apart again.
        Pass { name: "split_contributed", run: contributed::split_contributed },
        // Parts are taken from a Split, not from a sequence.
        Pass { name: "split_sequences", run: sequences::split_sequences },
        // Codes in the layouts of ONNX Runtime, which shape inference does not know all of.
        Pass { name: "lift_quantized", run: quantized::lift_quantized },
        // Then everything is computed in f32, so that rules see one type and casts that go.
        Pass { name: "widen_floats", run: widen::widen_floats },
        // Sizes that follow from the weights become constants; what they make trivial goes.
        Pass { name: "fold_constants", run: constants::fold_constants },
        Pass { name: "drop_no_ops", run: no_ops::drop_no_ops },
        Pass { name: "merge_duplicates", run: cse::merge_duplicates },
        Pass { name: "lift_sizes", run: sizes::lift_sizes },
        // A table stored for the head alone gives the embedding back before linears are sought.
        Pass { name: "share_tied_weights", run: tied::share_tied_weights },
        // Norms, activations and linears have nothing inside that another rule needs.
        Pass { name: "lift_norms", run: norm::lift_norms },
        Pass { name: "lift_activations", run: activation::lift_activations },
        // Gemm must become MatMul on 3-D activations before slices of it can become Split.
        Pass { name: "lift_linears", run: linear::lift_linears },
        Pass { name: "lift_splits", run: split::lift_splits },
        // Rotary embeddings before attention, which reads through them to its 3-D inputs.
        Pass { name: "lift_rotary_embeddings", run: rotary::lift_rotary_embeddings },
        Pass { name: "lift_attention", run: attention::lift_attention },
        // Only now is it seen what queries, keys and values are made of.
        Pass { name: "lift_projections", run: projection::lift_projections },
        // The masks that attention now reads directly can be told apart by what they compute.
        Pass { name: "lift_masks", run: mask::lift_masks },
        // What was written as products comes back as one operator.
        Pass { name: "lift_transforms", run: transform::lift_transforms },
        // What is left of the head splitting and merging cancels.
        Pass { name: "cancel_reshapes", run: reshape::cancel_reshapes },
        Pass { name: "drop_no_ops", run: no_ops::drop_no_ops },
        Pass { name: "merge_duplicates", run: cse::merge_duplicates },
        Pass { name: "declare_types", run: constants::declare_types },
    ]
}

/// Lifts `model` to the canonical vocabulary. A model whose operators can't be raised to
/// [`CANONICAL_OPSET`] is left at its version, and nothing is lifted.
///
/// # Errors
/// If shapes contradict each other, or a pass broke the graph.
pub fn canonicalize(model: &mut Model, manager: &mut PassManager) -> Result<(), PassError> {
    let mut first = passes();
    let raised = first.iter().position(|pass| pass.name == RAISING).map_or(0, |at| at + 1);
    let rest = first.split_off(raised);
    manager.run(model, &first)?;
    // From here on, operators of the canonical version are written.
    if model.opset("") < Some(opset::CANONICAL_OPSET) {
        return Ok(());
    }
    manager.run(model, &rest)
}
