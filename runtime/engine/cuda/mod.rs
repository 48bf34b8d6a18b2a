//! The CUDA engine.
//!
//! What follows from sizes, positions and token ids alone is computed in host memory before the
//! device starts (a few numbers a run); everything else runs on the device's stream, without
//! waiting for it. A short run (a decoding step) that comes again with the same shapes is recorded
//! as one CUDA graph and replayed from then on.
mod compile;
mod device;
mod place;
mod plan;
mod record;
mod session;
mod slots;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use planish_cpu::ThreadPool;
use planish_cuda::{Element, Gpu, GpuError, MemoryPool};
use planish_ir::Model;
use planish_passes::PassManager;
use planish_passes::inline::runnable;
use planish_passes::lower::fuse_for_gpu;

use super::{
    CompileOptions, Device, Engine, EngineError, Executable, IoInfo, PlanSummary, Session,
};
use compile::Compiler;
use device::DeviceMemory;
use plan::Plan;
use session::CudaSession;

/// Runs graphs on an NVIDIA GPU.
pub struct CudaEngine {
    gpu: Arc<Gpu>,
    element: Element,
    pool: Arc<ThreadPool>,
    /// What recorded runs of values work in.
    shared: MemoryPool,
}

impl CudaEngine {
    /// An engine on the device `ordinal`, which stores floats as `element`; what has to run on the
    /// CPU takes `n_threads` threads (0: one a core).
    ///
    /// # Errors
    /// If there is no such device, or no NVRTC.
    pub fn new(ordinal: usize, element: Element, n_threads: usize) -> Result<Self, GpuError> {
        let gpu = Gpu::open(ordinal)?;
        Ok(Self::on(gpu, element, n_threads))
    }

    /// An engine on a device that is open.
    pub fn on(gpu: Arc<Gpu>, element: Element, n_threads: usize) -> Self {
        let pool = Arc::new(ThreadPool::new(n_threads));
        Self { gpu, element, pool, shared: MemoryPool::new() }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Engine for CudaEngine {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn device(&self) -> Arc<dyn Device> {
        Arc::new(DeviceMemory { gpu: self.gpu.clone() })
    }

    fn best_chunk(&self) -> usize {
        2048
    }

    fn chooses_tokens(&self) -> bool {
        true
    }

    fn compile(
        &self,
        model: &Model,
        options: &CompileOptions,
    ) -> Result<Box<dyn Executable>, EngineError> {
        let model = runnable(model)?;
        let fused = fused(&model);
        let compiler = Compiler::new(&fused, &self.pool, &self.gpu, self.element)?;
        let plan = Arc::new(compiler.compile(options)?);
        let (gpu, pool, shared) = (self.gpu.clone(), self.pool.clone(), self.shared.clone());
        Ok(Box::new(CudaExecutable { plan, gpu, pool, shared }))
    }
}

/// The graph with neighbours fused; as it is where its declared types contradict each other, which
/// the engine overlooks and passes do not.
fn fused(model: &Model) -> Cow<'_, Model> {
    let mut fused = model.clone();
    match fuse_for_gpu(&mut fused, &mut PassManager::new()) {
        Ok(()) => Cow::Owned(fused),
        Err(error) => {
            tracing::debug!("nothing is fused for the GPU: {error}");
            Cow::Borrowed(model)
        }
    }
}

struct CudaExecutable {
    plan: Arc<Plan>,
    gpu: Arc<Gpu>,
    pool: Arc<ThreadPool>,
    shared: MemoryPool,
}

impl Executable for CudaExecutable {
    fn inputs(&self) -> &[IoInfo] {
        &self.plan.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &self.plan.outputs
    }

    fn summary(&self) -> &PlanSummary {
        &self.plan.summary
    }

    fn session(&self) -> Box<dyn Session> {
        let (plan, gpu, pool) = (self.plan.clone(), self.gpu.clone(), self.pool.clone());
        Box::new(CudaSession::new(plan, gpu, pool, self.shared.clone()))
    }
}
