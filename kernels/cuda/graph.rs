//! Captured graphs: many launches as one.

use cudarc::driver::{result, sys};

use crate::error::Doing;
use crate::{Gpu, GpuError};

/// Launches that were recorded once and are replayed together.
pub struct CapturedGraph {
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
}

// SAFETY: the driver's handles may be used from any thread, one at a time: replaying takes `&mut`.
unsafe impl Send for CapturedGraph {}

impl Gpu {
    /// Records what `work` launches, without running it. Addresses and arguments are recorded
    /// as they are, so what `work` allocates must stay allocated while the graph is in use.
    ///
    /// # Errors
    /// Those of `work`, and if it did something that can't be recorded (waiting for the device).
    pub fn capture<E: From<GpuError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<CapturedGraph, E> {
        self.exclusively(|| self.record(work))
    }

    fn record<E: From<GpuError>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<CapturedGraph, E> {
        let _turn = self.bind()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives as long as self.
        unsafe { result::stream::begin_capture(self.stream(), mode) }.doing("record a graph")?;
        let done = work();
        // SAFETY: capturing was begun.
        let graph = unsafe { result::stream::end_capture(self.stream()) };
        done?;
        let graph = graph.doing("record a graph")?;
        let flags = sys::CUgraphInstantiate_flags_enum(0);
        // SAFETY: the graph was just made.
        let executable = unsafe { result::graph::instantiate(graph, flags) };
        let executable = executable.doing("prepare a recorded graph")?;
        Ok(CapturedGraph { graph, executable })
    }

    /// Runs a recorded graph, in stream order.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn replay(&self, graph: &mut CapturedGraph) -> Result<(), GpuError> {
        let _turn = self.bind()?;
        // SAFETY: graph and stream exist.
        unsafe { result::graph::launch(graph.executable, self.stream()) }
            .doing("run a recorded graph")
    }
}

impl Drop for CapturedGraph {
    fn drop(&mut self) {
        // SAFETY: made by `capture`, and destroyed here alone.
        unsafe {
            let _ = result::graph::exec_destroy(self.executable);
            let _ = result::graph::destroy(self.graph);
        }
    }
}
