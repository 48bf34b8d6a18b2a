//! Where to compute.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use planish_cuda::Element;
use planish_runtime::calibrate::Worker;
use planish_runtime::engine::Engine;
use planish_runtime::engine::cpu::CpuEngine;
use planish_runtime::engine::cuda::CudaEngine;

use super::error::AppError;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA where there is a usable GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this number; an error where there is none.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", i)) => {
                i.parse().map(Self::Cuda).map_err(|_| format!("\"{i}\" is no number of a GPU"))
            }
            _ => Err("a device is auto, cpu, cuda or cuda:NUMBER".into()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(i) => write!(f, "cuda:{i}"),
        }
    }
}

/// How floats are stored on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum FloatType {
    /// IEEE half precision.
    #[default]
    F16,
    /// bfloat16.
    Bf16,
    /// 32 bits.
    F32,
}

impl FloatType {
    fn element(self) -> Element {
        match self {
            Self::F16 => Element::F16,
            Self::Bf16 => Element::BF16,
            Self::F32 => Element::F32,
        }
    }
}

/// How to open a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Where to compute.
    pub device: Device,
    /// How a GPU stores floats.
    pub float: FloatType,
    /// Threads of the CPU engine; nothing means one a core.
    pub threads: Option<usize>,
    /// Number of sequences that run side by side; at least 1.
    pub batch: usize,
    /// Whether the model is there to score a text: a GPU then finds the likelihood of its tokens
    /// itself.
    pub scores: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let (device, float) = (Device::default(), FloatType::default());
        Self { device, float, threads: None, batch: 1, scores: false }
    }
}

/// The engine for a device.
///
/// # Errors
/// [`AppError::Input`] where the device was asked for by name and is not there.
pub(super) fn engine(options: &OpenOptions) -> Result<Box<dyn Engine>, AppError> {
    Ok(match cuda(options, options.float.element())? {
        Some(engine) => Box::new(engine),
        None => Box::new(cpu(options)),
    })
}

/// The CUDA engine, where it is asked for and there; nothing where the CPU is to be used.
fn cuda(options: &OpenOptions, element: Element) -> Result<Option<CudaEngine>, AppError> {
    let open = |i| CudaEngine::new(i, element, options.threads.unwrap_or(0));
    match options.device {
        Device::Cpu => Ok(None),
        Device::Cuda(i) => open(i).map(Some).map_err(|error| {
            AppError::Input(format!("cannot use CUDA: {error}; use --device cpu or --device auto"))
        }),
        Device::Auto => match open(0) {
            Ok(engine) => {
                tracing::info!("running on {}", engine.gpu().properties().name);
                Ok(Some(engine))
            }
            Err(error) => {
                // Whoever has a GPU wants to know why it is not used.
                match planish_cuda::count() {
                    0 => tracing::info!("running on the CPU: {error}"),
                    _ => tracing::warn!("running on the CPU: {error}"),
                }
                Ok(None)
            }
        },
    }
}

/// Engines for learning.
pub(super) struct Learners {
    /// Runs what is done once.
    pub engine: Box<dyn Engine>,
    /// Learn blocks that do not depend on each other; none where one engine does everything.
    pub workers: Vec<Worker>,
}

/// Engines for learning: on the CPU `n_workers` that share its threads, if there is more than one. On a
/// GPU one block learns at a time, on all of it; floats are f32. That has to be asked for by name:
/// the same seed gave the same file in short runs there, but a long one did not end with three workers.
///
/// # Errors
/// As [`engine`].
pub(super) fn learners(options: &OpenOptions, n_workers: usize) -> Result<Learners, AppError> {
    if matches!(options.device, Device::Cuda(_))
        && let Some(cuda) = cuda(options, Element::F32)?
    {
        if n_workers > 1 {
            tracing::warn!("on a GPU one block learns at a time, not {n_workers}");
        }
        cuda.gpu().keep_memory();
        return Ok(Learners { engine: Box::new(cuda), workers: Vec::new() });
    }
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let each = (options.threads.unwrap_or_else(available) / n_workers.max(1)).max(1);
    let worker = |_| Worker { engine: Box::new(CpuEngine::new(each)) };
    let n_workers = if n_workers > 1 { n_workers } else { 0 };
    let workers = (0..n_workers).map(worker).collect();
    Ok(Learners { engine: Box::new(cpu(options)), workers })
}

/// The engine for what runs on the CPU alone: reports.
///
/// # Errors
/// [`AppError::Input`] where a GPU was asked for by name.
pub(super) fn cpu_engine(options: &OpenOptions) -> Result<CpuEngine, AppError> {
    match options.device {
        Device::Auto | Device::Cpu => Ok(cpu(options)),
        Device::Cuda(_) => Err(AppError::Input(
            "reports do not run on CUDA yet; use --device cpu or --device auto".into(),
        )),
    }
}

fn cpu(options: &OpenOptions) -> CpuEngine {
    CpuEngine::new(options.threads.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_shown() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["tpu", "cuda:", "cuda:x", "cpu:1", ""] {
            let error = wrong.parse::<Device>().unwrap_err();
            assert!(error.contains("cuda") || error.contains("GPU"), "{error}");
        }
    }
}
