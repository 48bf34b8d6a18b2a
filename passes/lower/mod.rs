//! Lowering: the canonical graph in the operators that the engine runs best.
//!
//! Lowered graphs are for execution only; they are never written to files. Each rule also leaves
//! alone what it does not recognise, so a graph that was never canonicalised lowers too, as far
//! as it goes.

mod cache;
mod drop_padding;
mod fuse;
mod gpu;
mod last_token;
mod likeliest;
mod linear;
mod scores;
mod shape_of_past;
mod weight_only;

#[cfg(test)]
mod testing;

use planish_ir::Model;
use planish_kernels::DOMAIN;

use crate::pass::{Pass, PassContext, PassError, PassManager};

pub use gpu::fuse_for_gpu;
pub use last_token::select_positions;
pub use likeliest::{Likeliest, add_likeliest};
pub use scores::add_scores;

/// Graph input that [`LowerOptions::cache`] adds where something still asks for the length of
/// the past: INT64 `[1]`, the number of positions in the cache.
pub const PAST_LENGTH: &str = "planish.past_length";
/// Graph input that [`select_positions`] adds: INT64 `[1]`, the first position of the run whose
/// logits are wanted; 0 for all, −1 for the last alone.
pub const LOGITS_FROM: &str = "planish.logits_from";
/// Graph input that [`add_scores`] adds: INT64 `[batch, positions]`, for each position with logits
/// the token to score.
pub const TARGETS: &str = "planish.targets";

/// What to lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowerOptions {
    /// Keep KV caches with the session in place of graph inputs and outputs.
    pub cache: bool,
    /// Take for granted that the attention mask is all ones, as it is where all sequences of the
    /// batch are equally long.
    pub no_padding: bool,
}

/// The lowering passes, in order.
pub fn passes(options: LowerOptions) -> Vec<Pass> {
    let mut passes = Vec::new();
    if options.cache {
        // First: it reads masks and caches in the canonical vocabulary.
        passes.push(Pass { name: "lower_caches", run: cache::lower_caches });
    }
    if options.no_padding {
        passes.push(Pass { name: "drop_padding", run: drop_padding::drop_padding });
    }
    passes.extend([
        Pass { name: "lower_weight_only", run: weight_only::lower_weight_only },
        Pass { name: "lower_linears", run: linear::lower_linears },
    ]);
    passes.extend(fuse::passes());
    passes
}

/// Fuses `Mul(Swish(gate), up)` alone.
///
/// # Errors
/// If shapes contradict each other.
pub(crate) fn fuse_swiglu(model: &mut Model) -> Result<usize, PassError> {
    fuse::fuse_swiglu(model, &mut PassContext::default())
}

/// Lowers `model`, which [`crate::canonicalize`] has been over.
///
/// # Errors
/// If shapes contradict each other, or a pass broke the graph.
pub fn lower(
    model: &mut Model,
    options: LowerOptions,
    manager: &mut PassManager,
) -> Result<(), PassError> {
    model.set_opset(DOMAIN, 1);
    manager.run(model, &passes(options))
}
