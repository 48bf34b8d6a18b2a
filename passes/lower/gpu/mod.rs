//! What the CUDA engine fuses beyond the lowered graph, where a kernel more costs as much as a
//! small product: a decoding step of a layer becomes nine launches.

mod residual;
mod rotary_attention;

use planish_ir::Model;

use crate::pass::{Pass, PassError, PassManager};

/// Fuses a lowered graph for the CUDA engine.
///
/// # Errors
/// If shapes contradict each other, or a pass broke the graph.
pub fn fuse_for_gpu(model: &mut Model, manager: &mut PassManager) -> Result<(), PassError> {
    manager.run(
        model,
        &[
            Pass { name: "fuse_residual", run: residual::fuse_residual },
            Pass { name: "fuse_rotary_attention", run: rotary_attention::fuse_rotary_attention },
        ],
    )
}
