//! Loaded kernels, and launching them.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{result, sys};

use crate::error::{Doing, describe};
use crate::{Args, Gpu, GpuError};

/// Dynamic shared memory that every kernel may have unasked: 48 KiB in all, of which some declare up to 20.
const ALWAYS_SHARED: u32 = 24 << 10;

/// A loaded module.
pub(crate) struct Module {
    handle: sys::CUmodule,
    /// Dynamic shared memory that the driver was told of, by kernel: its limit is one for all who launch
    /// the kernel, and may only grow.
    shared: Mutex<HashMap<String, u32>>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin into the current context; it stays until the context goes.
    pub fn load(image: &[u8]) -> Result<Self, GpuError> {
        // SAFETY: a whole cubin.
        let handle = unsafe { result::module::load_data(image.as_ptr().cast()) };
        Ok(Self { handle: handle.doing("load a kernel")?, shared: Mutex::default() })
    }
}

/// A kernel that is ready to launch.
#[derive(Clone)]
pub struct Function {
    inner: Arc<Inner>,
}

struct Inner {
    handle: sys::CUfunction,
    name: String,
    module: Arc<Module>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Function {
    pub(crate) fn find(module: Arc<Module>, entry: &str) -> Result<Self, GpuError> {
        let missing = || GpuError::unsupported(format!("there is no kernel {entry}"));
        let name = CString::new(entry).map_err(|_| missing())?;
        // SAFETY: the module is loaded.
        let handle = unsafe { result::module::get_function(module.handle, name) };
        let handle = handle.map_err(|_| missing())?;
        let inner = Inner { handle, name: entry.to_owned(), module };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Blocks of `threads` threads and `shared` dynamic bytes that one multiprocessor holds.
    ///
    /// # Errors
    /// If the kernel can't run so.
    pub fn blocks_per_multiprocessor(&self, threads: u32, shared: u32) -> Result<u32, GpuError> {
        self.allow_shared(shared)?;
        let mut n = 0;
        // SAFETY: the function is loaded, and `n` is written.
        let code = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut n,
                self.inner.handle,
                threads as i32,
                shared as usize,
            )
        };
        code.result().doing("say how many blocks fit")?;
        Ok(n.max(0) as u32)
    }

    fn allow_shared(&self, shared: u32) -> Result<(), GpuError> {
        if shared <= ALWAYS_SHARED {
            return Ok(());
        }
        let mut told = self.inner.module.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&self.inner.name).is_some_and(|told| *told >= shared) {
            return Ok(());
        }
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        let set = unsafe {
            result::function::set_function_attribute(
                self.inner.handle,
                CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                shared as i32,
            )
        };
        set.map_err(|error| GpuError::Launch {
            kernel: self.inner.name.clone(),
            grid: [0; 3],
            block: [0; 3],
            shared,
            error: describe(&error),
        })?;
        told.insert(self.inner.name.clone(), shared);
        Ok(())
    }
}

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The kernel may start before the one before it has ended (programmatic dependent launch);
    /// it calls `wait_for_previous_kernel()` before it touches what that one writes. Ignored by
    /// devices that can't.
    pub overlap: bool,
}

impl Launch {
    /// A one-dimensional launch without dynamic shared memory.
    pub fn linear(blocks: usize, threads: u32) -> Self {
        let blocks = u32::try_from(blocks.max(1)).unwrap_or(u32::MAX);
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0, overlap: false }
    }

    /// With this many dynamic bytes of shared memory.
    #[must_use]
    pub fn with_shared(mut self, bytes: usize) -> Self {
        self.shared = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// As a dependent launch.
    #[must_use]
    pub fn overlapping(mut self) -> Self {
        self.overlap = true;
        self
    }
}

impl Gpu {
    /// Launches a kernel on the device's stream.
    ///
    /// # Errors
    /// [`GpuError::Launch`] with kernel and shape; errors of a running kernel come with a later
    /// call.
    pub fn launch(&self, f: &Function, launch: Launch, args: &Args) -> Result<(), GpuError> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let _turn = self.bind()?;
        f.allow_shared(launch.shared)?;
        let mut overlap = overlap_attribute();
        // In a woven graph the one before is not the one launched before.
        let can_overlap =
            launch.overlap && self.properties().can_overlap() && !self.weaver.is_weaving();
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block[0],
            blockDimY: launch.block[1],
            blockDimZ: launch.block[2],
            sharedMemBytes: launch.shared,
            hStream: self.stream(),
            attrs: &mut overlap,
            numAttrs: u32::from(can_overlap),
        };
        let mut pointers = args.pointers();
        // SAFETY: the arguments are those of the kernel: callers keep to its parameters.
        let code = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                f.inner.handle,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        code.result().map_err(|error| GpuError::Launch {
            kernel: f.inner.name.clone(),
            grid: launch.grid,
            block: launch.block,
            shared: launch.shared,
            error: describe(&error),
        })
    }
}

fn overlap_attribute() -> sys::CUlaunchAttribute {
    use sys::CUlaunchAttributeID_enum::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    sys::CUlaunchAttribute {
        id: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    }
}
