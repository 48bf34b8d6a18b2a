//! Why a graph can't be compiled or run.

use planish_ir::GraphError;
use planish_kernels::OpError;
use thiserror::Error;

/// Why a graph can't be compiled or run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// An operator that nobody defines.
    #[error("there is no implementation of {op}, needed by the node {node}")]
    Unimplemented {
        /// Operator with its domain.
        op: String,
        /// The node.
        node: String,
    },
    /// A node that cannot be made ready.
    #[error("the node {node} can't be prepared: {error}")]
    Prepare {
        /// The node.
        node: String,
        /// Why.
        error: OpError,
    },
    /// A node that failed on its inputs.
    #[error("the node {node} failed: {error}")]
    Run {
        /// The node.
        node: String,
        /// Why.
        error: OpError,
    },
    /// An output or carried input that the graph does not have.
    #[error("the graph has no {role} \"{name}\"")]
    NoSuchValue {
        /// "input" or "output".
        role: &'static str,
        /// The name.
        name: String,
    },
    /// A tensor of another type or shape than the input's.
    #[error("the input \"{name}\" takes {expected}, but was given {got}")]
    Input {
        /// The input.
        name: String,
        /// Type and shape of the graph.
        expected: String,
        /// Type and shape of the tensor.
        got: String,
    },
    /// A run with too few or too many tensors.
    #[error("the graph takes {expected} inputs, but {got} were given")]
    InputCount {
        /// Inputs of the graph.
        expected: usize,
        /// Tensors given.
        got: usize,
    },
    /// A wanted output that nothing wrote.
    #[error("the output \"{0}\" was not computed")]
    NoOutput(String),
    /// A model-local function that can't be inlined.
    #[error(transparent)]
    Inline(#[from] planish_passes::PassError),
    /// A graph that can't be ordered.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
