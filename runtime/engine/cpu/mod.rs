//! The CPU engine.
mod adamw;
pub(super) mod compile;
pub(super) mod device;
pub(super) mod plan;
mod session;
mod weight_bytes;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use planish_cpu::ThreadPool;
use planish_ir::Model;
use planish_passes::inline::runnable;

use super::{
    CompileOptions, Device, Engine, EngineError, Executable, IoInfo, PlanSummary, Session,
};
use compile::Compiler;
use device::HostMemory;
use plan::Plan;
use session::CpuSession;

/// Runs graphs on the CPU, one node after the other, each on all threads.
pub struct CpuEngine {
    pool: Arc<ThreadPool>,
}

impl CpuEngine {
    /// An engine of `n_threads` threads, the caller's included; 0 takes one a core.
    pub fn new(n_threads: usize) -> Self {
        Self { pool: Arc::new(ThreadPool::new(n_threads)) }
    }

    /// Number of threads.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }
}

impl Engine for CpuEngine {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn device(&self) -> Arc<dyn Device> {
        Arc::new(HostMemory { pool: self.pool.clone() })
    }

    fn compile(
        &self,
        model: &Model,
        options: &CompileOptions,
    ) -> Result<Box<dyn Executable>, EngineError> {
        let model = runnable(model)?;
        let plan = Arc::new(Compiler::new(&model, &self.pool)?.compile(options)?);
        Ok(Box::new(CpuExecutable { plan, pool: self.pool.clone() }))
    }
}

struct CpuExecutable {
    plan: Arc<Plan>,
    pool: Arc<ThreadPool>,
}

impl Executable for CpuExecutable {
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
        Box::new(CpuSession::new(self.plan.clone(), self.pool.clone()))
    }
}
