//! One device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::{result, sys};

use crate::error::Doing;
use crate::launch::Module;
use crate::memory::MemoryPool;
use crate::turns::{Turn, Turns};
use crate::weave::Weaver;
use crate::{Function, GpuError, Source, cache, cublas, nvrtc};

/// What is known of a device.
#[derive(Debug, Clone)]
pub struct Properties {
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub major: u32,
    /// Compute capability.
    pub minor: u32,
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may ask for.
    pub shared_memory_per_block: u32,
    /// Bytes of the second-level cache.
    pub l2_bytes: usize,
    /// Bytes of memory in all.
    pub total_memory: usize,
}

impl Properties {
    /// The architecture as NVRTC names it, without `sm_`: with all instructions of Hopper.
    pub fn arch(&self) -> String {
        let suffix = if (self.major, self.minor) == (9, 0) { "a" } else { "" };
        format!("{}{}{suffix}", self.major, self.minor)
    }

    /// Programmatic dependent launch is there.
    pub fn can_overlap(&self) -> bool {
        self.major >= 9
    }

    /// Hopper's matrix instructions are there.
    pub fn has_wgmma(&self) -> bool {
        (self.major, self.minor) == (9, 0)
    }
}

/// One device: its context, one stream, the kernels compiled for it, its memory.
pub struct Gpu {
    ordinal: usize,
    context: sys::CUcontext,
    stream: sys::CUstream,
    properties: Properties,
    modules: Mutex<HashMap<String, Arc<Module>>>,
    pool: Mutex<MemoryPool>,
    keeps_memory: AtomicBool,
    turns: Turns,
    pub(crate) weaver: Weaver,
    pub(crate) cublas: OnceLock<Result<cublas::Handle, String>>,
}

// SAFETY: the driver's handles may be used from any thread that made the context current, which
// every method does.
unsafe impl Send for Gpu {}
// SAFETY: as above; what changes is behind locks.
unsafe impl Sync for Gpu {}

/// Whether the driver's library is installed.
pub fn is_present() -> bool {
    // SAFETY: looks for the library only.
    unsafe { sys::is_culib_present() }
}

/// Number of devices; 0 without a driver.
pub fn count() -> usize {
    if !is_present() || result::init().is_err() {
        return 0;
    }
    result::device::get_count().map_or(0, |n| usize::try_from(n).unwrap_or(0))
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`GpuError::NoDevice`] without driver or such a device, [`GpuError::NoLibrary`] without
    /// NVRTC.
    pub fn open(ordinal: usize) -> Result<Arc<Self>, GpuError> {
        let none = |why: &str| GpuError::NoDevice(why.to_owned());
        if !is_present() {
            return Err(none("the driver's library libcuda is not installed"));
        }
        result::init().map_err(|error| none(&crate::error::describe(&error)))?;
        let n = count();
        if ordinal >= n {
            return Err(none(&format!("device {ordinal} was asked for, {n} are there")));
        }
        if !nvrtc::nvrtc_is_present() {
            return Err(GpuError::NoLibrary { library: "NVRTC (libnvrtc)" });
        }
        let device = result::device::get(ordinal as i32).doing("find the device")?;
        // SAFETY: the device exists.
        let context = unsafe { result::primary_ctx::retain(device) }.doing("open the device")?;
        // SAFETY: the context was just made.
        unsafe { result::ctx::set_current(context) }.doing("use the device")?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .doing("make a stream")?;
        let properties = properties(device)?;
        if properties.major < 8 {
            let Properties { name, major, minor, .. } = properties;
            return Err(none(&format!(
                "{name} has compute capability {major}.{minor}; 8.0 is needed"
            )));
        }
        Ok(Arc::new(Self {
            ordinal,
            context,
            stream,
            properties,
            modules: Mutex::default(),
            pool: Mutex::new(MemoryPool::new()),
            keeps_memory: AtomicBool::new(false),
            turns: Turns::default(),
            weaver: Weaver::default(),
            cublas: OnceLock::new(),
        }))
    }

    /// The number that it was opened by.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// What is known of it.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The stream that everything runs on.
    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Calls `work` while all other threads wait with whatever they start on the device: what is
    /// recorded, and where memory comes from, concerns the whole stream.
    pub fn exclusively<R>(&self, work: impl FnOnce() -> R) -> R {
        let _all = self.turns.take_all();
        work()
    }

    /// Makes the context current on this thread, once no other has the device to itself; none gets
    /// it while the turn is held, so it is to be held until the work has been given to the stream.
    pub(crate) fn bind(&self) -> Result<Turn<'_>, GpuError> {
        let turn = self.turns.take();
        // SAFETY: the context lives as long as self.
        unsafe { result::ctx::set_current(self.context) }.doing("use the device")?;
        Ok(turn)
    }

    /// Waits for everything that was started.
    ///
    /// # Errors
    /// What a kernel did wrong meanwhile.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        let _turn = self.bind()?;
        // SAFETY: the stream lives as long as self.
        unsafe { result::stream::synchronize(self.stream) }.doing("finish its work")
    }

    /// Free and total bytes of memory.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn memory(&self) -> Result<(usize, usize), GpuError> {
        let _turn = self.bind()?;
        result::mem_get_info().doing("say how much memory is free")
    }

    /// The kernel `entry` of a source, compiled with definitions; compiled at first use, and kept
    /// on disk.
    ///
    /// # Errors
    /// If it does not compile, or has no such entry.
    pub fn function(
        &self,
        source: &'static Source,
        entry: &str,
        defines: &[(&str, &str)],
    ) -> Result<Function, GpuError> {
        let options: Vec<String> = defines.iter().map(|(k, v)| format!("-D{k}={v}")).collect();
        let key = format!("{} {}", source.name, options.join(" "));
        // Before the lock: who has the device to itself may want it.
        let _turn = self.bind()?;
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(&key) {
            Some(module) => module.clone(),
            None => {
                let image = cache::cubin(source, &self.properties.arch(), &options)?;
                let module = Arc::new(Module::load(&image)?);
                modules.insert(key, module.clone());
                module
            }
        };
        drop(modules);
        Function::find(module, entry)
    }

    /// Where [`Gpu::alloc`] takes memory from.
    pub fn pool(&self) -> MemoryPool {
        let _turn = self.turns.take();
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on all memory comes from pools and goes back there: for who makes and drops many graphs,
    /// since giving memory to the driver waits until the device has nothing to do.
    pub fn keep_memory(&self) {
        self.keeps_memory.store(true, Ordering::Relaxed);
    }

    pub(crate) fn keeps_memory(&self) -> bool {
        self.keeps_memory.load(Ordering::Relaxed)
    }

    /// Takes memory from another pool from now on; returns the one before.
    pub fn set_pool(&self, pool: MemoryPool) -> MemoryPool {
        std::mem::replace(&mut *self.pool.lock().unwrap_or_else(PoisonError::into_inner), pool)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.synchronize().is_err() {
            return;
        }
        // SAFETY: nothing uses the stream any more. The device's primary context stays: buffers and
        // graphs may outlive this, and are freed in it.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}

fn properties(device: sys::CUdevice) -> Result<Properties, GpuError> {
    use sys::CUdevice_attribute_enum as A;
    let read = |attribute| {
        // SAFETY: the device exists.
        unsafe { result::device::get_attribute(device, attribute) }
            .doing("describe itself")
            .map(|value| value.max(0) as u32)
    };
    Ok(Properties {
        name: result::device::get_name(device).doing("give its name")?,
        major: read(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        minor: read(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        multiprocessors: read(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_memory_per_block: read(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        l2_bytes: read(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        // SAFETY: the device exists.
        total_memory: unsafe { result::device::total_mem(device) }.doing("say its memory")?,
    })
}
