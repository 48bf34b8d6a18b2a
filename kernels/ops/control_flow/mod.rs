//! `If`, `Loop` and `Scan`: operators that hold graphs of their own.
//!
//! Operators see tensors, not the graph around them. What a held graph reads from outside is
//! therefore made inputs of the node and of the graph first (see [`close`]); inference and
//! evaluation take nodes in that form only.

use planish_ir::Graph;

use crate::{CpuContext, OpDef, OpError, OpNode};

mod body;
mod branch;
mod close;
mod infer;
mod repeat;
mod scan;
mod stack;
#[cfg(test)]
mod tests;

use body::Body;
pub use close::{close, close_all, holds_graphs, is_closed};

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("If", branch::infer, branch::eval).with_cpu(branch::cpu),
    OpDef::new("Loop", repeat::infer, repeat::eval).with_cpu(repeat::cpu),
    OpDef::new("Scan", scan::infer, scan::eval).with_cpu(scan::cpu),
];

/// Iterations beyond which a loop counts as one that does not end.
const MAX_ITERATIONS: usize = 1 << 20;

/// What bodies run with: a session's context, or nothing, where the reference forms run.
type Session<'a, 'b> = Option<&'a mut CpuContext<'b>>;

/// The graph in an attribute.
fn graph<'a>(op: &'a OpNode, name: &str) -> Result<&'a Graph, OpError> {
    let attribute = op.node.attributes.get(name).map(|attribute| attribute.graphs());
    match attribute {
        Some([graph]) => Ok(graph),
        _ => Err(OpError::unsupported(format!("it has no graph \"{name}\""))),
    }
}

/// The number of values that [`close`] appended to the inputs.
fn n_captured(op: &OpNode) -> usize {
    usize::try_from(op.node.int(close::CAPTURED, 0)).unwrap_or(0).min(op.node.inputs.len())
}
