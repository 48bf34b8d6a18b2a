//! What is done with a file that may be damaged: everything that commands do with a model before
//! they run it. Each step may refuse it; none may panic, hang or take memory without end.

use std::path::Path;

use bytes::Bytes;
use planish_ir::text::{PrintOptions, print};
use planish_ir::{Model, verify};
use planish_kernels::infer::infer;
use planish_onnx::read_model_bytes;
use planish_passes::canonicalize::canonicalize;
use planish_passes::emit::{EMITTED_OPSET, lower_for_opset};
use planish_passes::lower::{LowerOptions, lower};
use planish_passes::sites::Layout;
use planish_passes::{PassError, PassManager};

/// How far a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// It is no model.
    Nothing,
    /// It could be read, but shapes contradict each other.
    Model,
    /// It has a canonical form.
    Canonical,
}

/// Reads, infers, canonicalises, looks for sites, lowers for the engine and for other runtimes.
///
/// # Panics
/// If a pass leaves a graph that does not verify.
pub fn examine(bytes: Bytes, folder: &Path) -> Reached {
    let Ok(model) = read_model_bytes(bytes, Some(folder)) else { return Reached::Nothing };
    let options = PrintOptions { max_elements: 8, value_info: true, types: true };
    drop(print(&model.graph, &options));
    // Real exports declare wrong types too, which canonicalisation gets over.
    drop(infer(&model));
    let mut canonical = model;
    if !sound(canonicalize(&mut canonical, &mut verifying())) {
        return Reached::Model;
    }
    drop(Layout::new(&canonical));
    emit(canonical.clone());
    for cache in [false, true] {
        let options = LowerOptions { cache, no_padding: cache };
        sound(lower(&mut canonical.clone(), options, &mut verifying()));
    }
    Reached::Canonical
}

fn verifying() -> PassManager {
    PassManager::new().with_verify()
}

/// Whether passes succeeded. That one broke the graph is no fault of the file.
fn sound(result: Result<(), PassError>) -> bool {
    if let Err(error @ PassError::Verify { .. }) = &result {
        panic!("{error}");
    }
    result.is_ok()
}

fn emit(mut model: Model) {
    if lower_for_opset(&mut model, EMITTED_OPSET).is_ok() {
        verify(&model).expect("emission leaves a sound graph");
    }
}
