//! Fast forms of operators on the CPU.

use planish_cpu::KvCache;
use planish_cpu::ThreadPool;
use planish_ir::{DataType, Tensor};

use crate::OpError;
use crate::buffers::{Buffer, BufferPool};

pub use planish_cpu::ProductPrecision;

/// What a kernel may use while it runs.
pub struct CpuContext<'a> {
    /// Threads.
    pub pool: &'a ThreadPool,
    /// Where outputs and scratch come from.
    pub buffers: &'a BufferPool,
    /// KV caches of the session, one per attention layer and sequence of the batch:
    /// `caches[layer][sequence]`.
    pub caches: &'a mut Vec<Vec<KvCache>>,
    /// What large f32 matrix products are computed in.
    pub precision: ProductPrecision,
}

impl<'a> CpuContext<'a> {
    /// A context that computes in f32.
    pub fn new(
        pool: &'a ThreadPool,
        buffers: &'a BufferPool,
        caches: &'a mut Vec<Vec<KvCache>>,
    ) -> Self {
        Self { pool, buffers, caches, precision: ProductPrecision::F32 }
    }

    /// A buffer for `n` f32.
    ///
    /// # Errors
    /// [`OpError::Memory`] if there is no memory for it.
    pub fn f32s(&self, n: usize) -> Result<Buffer, OpError> {
        self.buffers.take_for::<f32>(n)
    }

    /// Makes an f32 tensor of a buffer.
    ///
    /// # Errors
    /// If the size does not fit.
    pub fn f32_tensor(&self, buffer: Buffer, shape: Vec<usize>) -> Result<Tensor, OpError> {
        Ok(buffer.into_tensor(DataType::F32, shape)?)
    }
}

/// A node made ready to run: attributes read, weights packed.
pub trait Kernel: Send + Sync {
    /// Runs on inputs that are all resident; `None` where an optional input is absent, or where
    /// the kernel took a constant in (see [`Kernel::owns_input`]). Returns one tensor for each
    /// output of the node.
    ///
    /// # Errors
    /// Shapes or types that the operator does not take.
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError>;

    /// Whether the kernel keeps its own (packed) form of the constant at this input, so that
    /// the engine need not hold the original.
    fn owns_input(&self, _index: usize) -> bool {
        false
    }

    /// Bytes of weights that the kernel holds.
    fn weight_bytes(&self) -> usize {
        0
    }
}

/// The input at `index`.
///
/// # Errors
/// If it is absent.
pub fn required<'a>(inputs: &[Option<&'a Tensor>], index: usize) -> Result<&'a Tensor, OpError> {
    inputs.get(index).copied().flatten().ok_or(OpError::MissingInput(index))
}
