//! One folder per operator under [`ops`]: schema, shape inference, an obviously right reference
//! evaluation, fast CPU kernel. [`infer`] runs the shape inference over a graph.

pub mod buffers;
pub mod cuda_kernel;
pub mod fact;
pub mod grad;
pub mod infer;
pub mod kernel;
pub mod memory;
pub mod op;
pub mod ops;

pub use cuda_kernel::{CudaContext, CudaInputs, CudaKernel, CudaPrepare, GpuTensor};
pub use fact::Fact;
pub use grad::{GradNode, GradScope};
pub use kernel::{CpuContext, Kernel, ProductPrecision};
pub use op::{OpDef, OpError, OpNode};

/// The domain of planish's own operators.
pub const DOMAIN: &str = "planish";
/// The domain of ONNX Runtime's contributed operators.
pub const MICROSOFT: &str = "com.microsoft";
