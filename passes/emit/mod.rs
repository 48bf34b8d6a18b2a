//! Passes that make a model loadable by other runtimes: operators of newer sets lowered, planish's
//! own operators accompanied by model-local functions, operator set imports as used.

mod contributed;
mod functions;
mod opset;
mod standard;
mod swish;
mod transforms;
mod types;
mod used;

#[cfg(test)]
mod onnxruntime_tests;
#[cfg(test)]
mod tests;

use planish_ir::Model;

use crate::half::cast_weights;
pub use contributed::{CACHE_NAMES, Contributed, DecoderInputs, Interface, lower_for_onnxruntime};
pub use functions::add_functions;
pub use opset::EMITTED_OPSET;
pub use standard::lower_to_standard;

/// Lowest version of the file format that has 4-bit integers.
const IR_VERSION: i64 = 10;

/// Why a model can't be written for other runtimes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EmitError {
    /// An operator that only planish's engine knows.
    #[error("{node} is an operator of planish's engine and has no form for other runtimes")]
    NoFunction {
        /// The node.
        node: String,
    },
    /// An operator, or an input of one, that the asked-for operator set lacks.
    #[error("{node} needs operator set {needs}, but {opset} is to be written")]
    TooNew {
        /// The node.
        node: String,
        /// The version that has it.
        needs: i64,
        /// The version that was asked for.
        opset: i64,
    },
    /// A node that the asked-for format has no form for.
    #[error("{node} can't be written in this format: {reason}")]
    Refused {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// Shapes that contradict each other.
    #[error("{0}")]
    Infer(String),
    /// A version that can't be written.
    #[error("operator set {opset} can't be written: {reason}")]
    Opset {
        /// The version.
        opset: i64,
        /// Why.
        reason: String,
    },
}

/// Brings a canonical (and quantised) model to version `opset` of ONNX's operator set: lowers
/// what that version lacks, casts weights that are stored in 16 bits, adds model-local functions for planish's operators, and imports
/// exactly the domains that are used. Returns the number of nodes lowered.
///
/// # Errors
/// If a node has no form in that version.
pub fn lower_for_opset(model: &mut Model, opset: i64) -> Result<usize, EmitError> {
    opset::check_version(model, opset)?;
    let n_lowered = if opset < swish::SWISH_OPSET { swish::lower_swish(model) } else { 0 };
    opset::check_nodes(model, opset)?;
    add_functions(model, opset)?;
    model.set_opset("", opset);
    model.ir_version = model.ir_version.max(IR_VERSION);
    used::remove_unused_imports(model);
    cast_weights(model).map_err(|error| EmitError::Infer(error.to_string()))?;
    types::declare_results(model)?;
    Ok(n_lowered)
}
