//! What can go wrong on the device.

use cudarc::driver::DriverError;

/// What can go wrong on the device.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// No driver, or no device.
    #[error("there is no usable NVIDIA GPU: {0}")]
    NoDevice(String),
    /// A library that is not installed.
    #[error("{library} is needed to run on the GPU, and was not found")]
    NoLibrary {
        /// Its name.
        library: &'static str,
    },
    /// Memory is exhausted.
    #[error("{:.2} GB of GPU memory are needed, {:.2} GB are free", *needed as f64 / 1e9, *free as f64 / 1e9)]
    Memory {
        /// Bytes asked for.
        needed: usize,
        /// Bytes free.
        free: usize,
    },
    /// A kernel that NVRTC refuses.
    #[error("the kernel source {source_name} does not compile for sm_{arch}: {log}")]
    Compile {
        /// Name of the source.
        source_name: &'static str,
        /// Architecture, as `90a`.
        arch: String,
        /// NVRTC's log.
        log: String,
    },
    /// A launch that failed.
    #[error(
        "the kernel {kernel}, grid {grid:?} of {block:?} threads and {shared} bytes, failed: {error}"
    )]
    Launch {
        /// Its name.
        kernel: String,
        /// Blocks.
        grid: [u32; 3],
        /// Threads of a block.
        block: [u32; 3],
        /// Bytes of dynamic shared memory.
        shared: u32,
        /// The driver's words.
        error: String,
    },
    /// Another call that failed.
    #[error("the GPU driver failed to {what}: {error}")]
    Driver {
        /// What was tried.
        what: &'static str,
        /// The driver's words.
        error: String,
    },
    /// Sizes or types that a kernel does not take.
    #[error("{0}")]
    Unsupported(String),
    /// The disk cache of kernels.
    #[error("the kernel cache {path} can't be used: {error}")]
    Cache {
        /// File or folder.
        path: String,
        /// Why.
        error: std::io::Error,
    },
}

impl GpuError {
    /// Sizes or types that a kernel does not take.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }
}

/// Names what failed.
pub(crate) trait Doing<T> {
    /// Turns a driver's error into one that says what was tried.
    fn doing(self, what: &'static str) -> Result<T, GpuError>;
}

impl<T> Doing<T> for Result<T, DriverError> {
    fn doing(self, what: &'static str) -> Result<T, GpuError> {
        self.map_err(|error| GpuError::Driver { what, error: describe(&error) })
    }
}

/// Name and text of a driver's error.
pub(crate) fn describe(error: &DriverError) -> String {
    let name = error.error_name().ok().and_then(|n| n.to_str().ok().map(str::to_owned));
    let text = error.error_string().ok().and_then(|n| n.to_str().ok().map(str::to_owned));
    match (name, text) {
        (Some(name), Some(text)) => format!("{text} ({name})"),
        _ => format!("error {:?}", error.0),
    }
}
