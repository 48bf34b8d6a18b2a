//! What a fast form does with types and shapes that it has no loop for.

use planish_ir::{Node, Tensor};

use crate::op::EvalFn;
use crate::{OpError, OpNode, memory, ops};

/// A node kept for its reference evaluation.
pub(crate) struct Fallback {
    node: Node,
    opset: i64,
    eval: EvalFn,
}

impl Fallback {
    /// Keeps what the evaluation needs of `op`.
    pub(crate) fn new(op: &OpNode, eval: EvalFn) -> Self {
        Self { node: op.node.clone(), opset: op.opset, eval }
    }

    /// The node.
    pub(crate) fn op(&self) -> OpNode<'_> {
        OpNode { node: &self.node, opset: self.opset }
    }

    /// Evaluates the node.
    ///
    /// # Errors
    /// As the evaluation, and [`OpError::Memory`].
    pub(crate) fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let owned: Vec<Option<Tensor>> = inputs.iter().map(|t| t.cloned()).collect();
        if let Some(def) = ops::find(&self.node.domain, &self.node.op_type) {
            memory::check_evaluation(def, &self.op(), &owned)?;
        }
        (self.eval)(&self.op(), &owned)
    }
}
