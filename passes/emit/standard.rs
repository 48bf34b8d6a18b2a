//! ONNX's own operators alone: weights are codes behind `DequantizeLinear`.

use planish_ir::Model;

use super::swish::{SWISH_OPSET, lower_swish};
use super::transforms::expand_transforms;
use super::{EmitError, IR_VERSION, opset, types, used};
use crate::half::cast_weights;

/// Writes a canonical model whose weights alone are quantised in version `opset` of ONNX's own
/// operator set, without functions: transforms become `Reshape` and `MatMul`. Returns the number
/// of nodes lowered.
///
/// # Errors
/// If a node has no form in that version, or is an operator of planish's own.
pub fn lower_to_standard(model: &mut Model, opset: i64) -> Result<usize, EmitError> {
    opset::check_version(model, opset)?;
    let n_swish = if opset < SWISH_OPSET { lower_swish(model) } else { 0 };
    let n_lowered = n_swish + expand_transforms(model)?;
    opset::check_nodes(model, opset)?;
    used::check_no_own(model)?;
    model.set_opset("", opset);
    model.ir_version = model.ir_version.max(IR_VERSION);
    used::remove_unused_imports(model);
    cast_weights(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    types::declare_results(model)?;
    Ok(n_lowered)
}
