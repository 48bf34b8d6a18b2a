//! What an operator is.

use planish_ir::{Function, Node, Tensor, TensorError};

use crate::cuda_kernel::{CudaKernel, CudaPrepare};
use crate::grad::GradFn;
use crate::{Fact, Kernel, memory};

/// Definition of one operator. Adding one takes a folder under `ops/` and a line in its list.
pub struct OpDef {
    /// Domain; `""` is ONNX's own.
    pub domain: &'static str,
    /// Operator type.
    pub name: &'static str,
    /// Shape and type inference: one fact for each output of the node.
    pub infer: InferFn,
    /// Reference evaluation: obviously right, as slow as it likes; one tensor for each output.
    pub eval: EvalFn,
    /// The fast CPU form, if there is one; without it the engine runs `eval` and counts that.
    pub cpu: Option<CpuFn>,
    /// The CUDA form, if there is one; without it the CUDA engine runs the node on the CPU and
    /// counts that.
    pub cuda: Option<CudaFn>,
    /// The body in standard operators that goes into emitted files, for planish's own operators.
    pub function: Option<fn() -> Function>,
    /// The gradient rule; without it nothing can be learned through the operator.
    pub grad: Option<GradFn>,
}

/// See [`OpDef::infer`].
pub type InferFn = fn(&OpNode, &[Fact]) -> Result<Vec<Fact>, OpError>;
/// See [`OpDef::eval`].
pub type EvalFn = fn(&OpNode, &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError>;
/// Makes a kernel for a node. The slice holds the inputs that are constants (weights to be
/// packed, axes), `None` for the others. `Ok(None)` means that this node (its attributes, types)
/// has no fast form.
pub type CpuFn = fn(&OpNode, &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError>;
/// Makes a CUDA kernel for a node; arguments and `Ok(None)` as in [`CpuFn`].
pub type CudaFn = fn(
    &OpNode,
    &CudaPrepare<'_>,
    &[Option<Tensor>],
) -> Result<Option<Box<dyn CudaKernel>>, OpError>;

impl OpDef {
    /// A definition without fast form and function body.
    pub const fn new(name: &'static str, infer: InferFn, eval: EvalFn) -> Self {
        Self { domain: "", name, infer, eval, cpu: None, cuda: None, function: None, grad: None }
    }

    /// In another domain.
    #[must_use]
    pub const fn in_domain(mut self, domain: &'static str) -> Self {
        self.domain = domain;
        self
    }

    /// With a fast CPU form.
    #[must_use]
    pub const fn with_cpu(mut self, cpu: CpuFn) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// With a CUDA form.
    #[must_use]
    pub const fn with_cuda(mut self, cuda: CudaFn) -> Self {
        self.cuda = Some(cuda);
        self
    }

    /// With a gradient rule.
    #[must_use]
    pub const fn with_grad(mut self, grad: GradFn) -> Self {
        self.grad = Some(grad);
        self
    }

    /// With a function body.
    #[must_use]
    pub const fn with_function(mut self, function: fn() -> Function) -> Self {
        self.function = Some(function);
        self
    }

    /// The reference evaluation, once it is known that there is memory for it.
    ///
    /// # Errors
    /// As [`OpDef::eval`], and [`OpError::Memory`].
    pub fn evaluate(
        &self,
        node: &OpNode,
        inputs: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        memory::check_evaluation(self, node, inputs)?;
        (self.eval)(node, inputs)
    }
}

/// A node as an operator sees it: attributes, and which version of the operator set it means.
#[derive(Clone, Copy)]
pub struct OpNode<'a> {
    /// The node; its value ids mean nothing here, but absent inputs and outputs show.
    pub node: &'a Node,
    /// Version of the operator set of the node's domain.
    pub opset: i64,
}

impl OpNode<'_> {
    /// Number of outputs that the node lists, at least 1.
    pub fn n_outputs(&self) -> usize {
        self.node.outputs.len().max(1)
    }

    /// The output at `index` is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.node.output(index).is_some() || (index == 0 && self.node.outputs.is_empty())
    }
}

/// Why an operator can't be inferred or run.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// An input that must be there is absent.
    #[error("input {0} is absent")]
    MissingInput(usize),
    /// Shapes that do not go together.
    #[error("{0}")]
    Shape(String),
    /// Types, attributes or sizes that the operator does not take.
    #[error("{0}")]
    Unsupported(String),
    /// A tensor for which there is no memory.
    #[error("{:.1} GB are needed, more memory than there is", *n_bytes as f64 / 1e9)]
    Memory {
        /// What was asked for.
        n_bytes: u128,
    },
    /// The device failed.
    #[error(transparent)]
    Gpu(Box<planish_cuda::GpuError>),
    /// A tensor that can't be read as needed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl From<planish_cuda::GpuError> for OpError {
    fn from(error: planish_cuda::GpuError) -> Self {
        Self::Gpu(Box::new(error))
    }
}

impl OpError {
    /// Shapes that do not go together.
    pub fn shape(message: impl Into<String>) -> Self {
        Self::Shape(message.into())
    }

    /// Types, attributes or sizes that the operator does not take.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }
}

/// The input at `index` of an evaluation.
///
/// # Errors
/// If it is absent.
pub fn required(inputs: &[Option<Tensor>], index: usize) -> Result<&Tensor, OpError> {
    inputs.get(index).and_then(Option::as_ref).ok_or(OpError::MissingInput(index))
}

/// The input at `index` of an evaluation, if present.
pub fn optional(inputs: &[Option<Tensor>], index: usize) -> Option<&Tensor> {
    inputs.get(index).and_then(Option::as_ref)
}
