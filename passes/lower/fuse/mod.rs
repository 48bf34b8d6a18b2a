//! Neighbours that run in one step: fewer passes over the activations, fewer parallel regions.

mod add_norm;
mod norm_quantize;
mod quantizer;
mod shared_codes;
mod swiglu;
mod swiglu_quantize;

use crate::pass::Pass;

pub(super) use swiglu::fuse_swiglu;

/// The fusing passes, in order.
pub(super) fn passes() -> Vec<Pass> {
    vec![
        Pass { name: "fuse_swiglu", run: fuse_swiglu },
        // A quantiser takes what leads to it before anything else does.
        Pass { name: "fuse_swiglu_quantize", run: swiglu_quantize::fuse_swiglu_quantize },
        Pass { name: "fuse_norm_quantize", run: norm_quantize::fuse_norm_quantize },
        Pass { name: "fuse_add_norm", run: add_norm::fuse_add_norm },
        Pass { name: "fuse_shared_codes", run: shared_codes::fuse_shared_codes },
    ]
}
