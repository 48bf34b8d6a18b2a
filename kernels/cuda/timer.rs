//! Measuring time on the device.

use cudarc::driver::{result, sys};

use crate::error::Doing;
use crate::{Gpu, GpuError};

/// Two events around work.
pub struct Stopwatch {
    start: sys::CUevent,
    end: sys::CUevent,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Stopwatch {}

impl Stopwatch {
    /// Not started.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let _turn = gpu.bind()?;
        let event = || {
            result::event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT).doing("make an event")
        };
        Ok(Self { start: event()?, end: event()? })
    }

    /// Marks the start, in stream order.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn start(&self, gpu: &Gpu) -> Result<(), GpuError> {
        let _turn = gpu.bind()?;
        // SAFETY: event and stream exist.
        unsafe { result::event::record(self.start, gpu.stream()) }.doing("start a clock")
    }

    /// Marks the end, in stream order.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn stop(&self, gpu: &Gpu) -> Result<(), GpuError> {
        let _turn = gpu.bind()?;
        // SAFETY: event and stream exist.
        unsafe { result::event::record(self.end, gpu.stream()) }.doing("stop a clock")
    }

    /// Microseconds between the marks; waits for the second.
    ///
    /// # Errors
    /// If the work between them failed.
    pub fn microseconds(&self) -> Result<f64, GpuError> {
        // SAFETY: both events were recorded.
        unsafe {
            result::event::synchronize(self.end).doing("finish its work")?;
            let ms = result::event::elapsed(self.start, self.end).doing("read a clock")?;
            Ok(f64::from(ms) * 1e3)
        }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and destroyed here alone.
        unsafe {
            let _ = result::event::destroy(self.start);
            let _ = result::event::destroy(self.end);
        }
    }
}

/// Median microseconds of `work` over `repeats` runs, after three to warm up. For work of a few
/// microseconds give `work` several launches, or a captured graph: the clock sees gaps between
/// launches.
///
/// # Errors
/// Those of `work`.
pub fn median_us(
    gpu: &Gpu,
    repeats: usize,
    mut work: impl FnMut() -> Result<(), GpuError>,
) -> Result<f64, GpuError> {
    for _ in 0..3 {
        work()?;
    }
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats.max(1) {
        let watch = Stopwatch::new(gpu)?;
        watch.start(gpu)?;
        work()?;
        watch.stop(gpu)?;
        times.push(watch);
    }
    let mut times = times.iter().map(Stopwatch::microseconds).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
