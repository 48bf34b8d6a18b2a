//! Floating-point matrix products by cuBLAS.

use std::ffi::c_void;

use cudarc::cublas::{result, sys};

use crate::{DeviceBuffer, DevicePtr, Element, Gpu, GpuError};

/// cuBLAS, ready to use.
pub(crate) struct Handle {
    handle: sys::cublasHandle_t,
    lock: std::sync::Mutex<()>,
    /// Its own, so that recording a product allocates nothing.
    workspace: DeviceBuffer,
}

impl Handle {
    fn set_workspace(&self, workspace: &DeviceBuffer) -> Result<(), result::CublasError> {
        let at = workspace.ptr().0 as *mut c_void;
        // SAFETY: the workspace has this size, and lives as long as it is used.
        unsafe { sys::cublasSetWorkspace_v2(self.handle, at, WORKSPACE_BYTES) }.result()
    }

    /// Products that may run side by side don't share a workspace: while a woven graph is recorded each
    /// gets one from the pool, which is to be held until it is launched.
    fn workspace_for(&self, gpu: &Gpu) -> Result<Option<Borrowed<'_>>, GpuError> {
        if !gpu.weaver.is_weaving() {
            return Ok(None);
        }
        let workspace = gpu.alloc(WORKSPACE_BYTES)?;
        self.set_workspace(&workspace).map_err(|error| GpuError::Driver {
            what: "give cuBLAS memory",
            error: error.to_string(),
        })?;
        Ok(Some(Borrowed { handle: self, _workspace: workspace }))
    }
}

/// A workspace for one product; when it is dropped cuBLAS has its own again.
struct Borrowed<'a> {
    handle: &'a Handle,
    _workspace: DeviceBuffer,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // It was accepted once.
        let _ = self.handle.set_workspace(&self.handle.workspace);
    }
}

/// What NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

// SAFETY: used under its lock.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle`, and destroyed here alone.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// `out = alpha · x · w`, all row-major and of one element type, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Gemm {
    /// Rows of x.
    pub rows: usize,
    /// Columns of x.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// `[rows, k]`, or `[k, rows]` where `trans_x`.
    pub x: DevicePtr,
    /// The rows are stored transposed.
    pub trans_x: bool,
    /// `[k, n]`, or `[n, k]` where `trans_w`.
    pub w: DevicePtr,
    /// The weight is stored transposed.
    pub trans_w: bool,
    /// `[rows, n]`.
    pub out: DevicePtr,
    /// How all three are stored.
    pub element: Element,
    /// Factor on the product.
    pub alpha: f32,
    /// Adds to what `out` holds.
    pub accumulate: bool,
    /// Factors of f32 may be rounded to TF32, 10 bits of mantissa, for the tensor cores.
    pub tf32: bool,
}

/// Runs a product on the device's stream.
///
/// # Errors
/// If cuBLAS is not installed or refuses.
pub fn gemm(gpu: &Gpu, gemm: Gemm) -> Result<(), GpuError> {
    let _turn = gpu.bind()?;
    let handle = handle(gpu)?;
    let size = |n: usize| {
        i32::try_from(n).map_err(|_| GpuError::unsupported(format!("{n} is too large for cuBLAS")))
    };
    let (m, n, k) = (size(gemm.n)?, size(gemm.rows)?, size(gemm.k)?);
    let kind = kind(gemm.element);
    use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
    // Row-major products are column-major ones of the transposed matrices, in the other order.
    let (op, lead) = if gemm.trans_w { (CUBLAS_OP_T, k) } else { (CUBLAS_OP_N, m) };
    let (x_op, x_lead) = if gemm.trans_x { (CUBLAS_OP_T, n) } else { (CUBLAS_OP_N, k) };
    let (alpha, beta) = (gemm.alpha, f32::from(u8::from(gemm.accumulate)));
    let pointer = |p: DevicePtr| p.0 as *mut c_void;
    let _guard = handle.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _workspace = handle.workspace_for(gpu)?;
    // SAFETY: callers keep to the sizes of their buffers.
    unsafe {
        result::gemm_ex(
            handle.handle,
            op,
            x_op,
            m,
            n,
            k,
            (&raw const alpha).cast(),
            pointer(gemm.w),
            kind,
            lead,
            pointer(gemm.x),
            kind,
            x_lead,
            (&raw const beta).cast(),
            pointer(gemm.out),
            kind,
            m,
            compute(gemm.element, gemm.tf32),
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(|error| GpuError::Driver { what: "multiply with cuBLAS", error: error.to_string() })
}

/// `out = alpha · a · b` for each of several matrices, all row-major; sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Batched {
    /// Products.
    pub count: usize,
    /// Rows of a, columns of a, columns of b.
    pub sizes: [usize; 3],
    /// Matrices `[m, k]`, or `[k, m]` where transposed; elements from one to the next, 0 for one of all.
    pub a: (DevicePtr, bool, i64),
    /// Matrices `[k, n]`, or `[n, k]` where transposed; elements from one to the next.
    pub b: (DevicePtr, bool, i64),
    /// `[count, m, n]`.
    pub out: DevicePtr,
    /// Factor on the products.
    pub alpha: f32,
    /// How a and b are stored.
    pub element: Element,
    /// How the products are stored: as a and b, or f32.
    pub out_element: Element,
    /// As [`Gemm::tf32`].
    pub tf32: bool,
}

/// Runs several products on the device's stream.
///
/// # Errors
/// If cuBLAS is not installed or refuses.
pub fn gemm_batched(gpu: &Gpu, batched: &Batched) -> Result<(), GpuError> {
    let _turn = gpu.bind()?;
    let handle = handle(gpu)?;
    let size = |n: usize| {
        i32::try_from(n).map_err(|_| GpuError::unsupported(format!("{n} is too large for cuBLAS")))
    };
    let [m, k, n] = batched.sizes;
    let (m, k, n, count) = (size(m)?, size(k)?, size(n)?, size(batched.count)?);
    use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
    let op = |transposed: bool| if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
    let pointer = |p: DevicePtr| p.0 as *mut c_void;
    let ((a, a_turned, a_step), (b, b_turned, b_step)) = (batched.a, batched.b);
    let beta = 0f32;
    let _guard = handle.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _workspace = handle.workspace_for(gpu)?;
    // As above, the factors are exchanged. SAFETY: callers keep to the sizes of their buffers.
    unsafe {
        result::gemm_strided_batched_ex(
            handle.handle,
            op(b_turned),
            op(a_turned),
            n,
            m,
            k,
            (&raw const batched.alpha).cast(),
            pointer(b),
            kind(batched.element),
            if b_turned { k } else { n },
            b_step,
            pointer(a),
            kind(batched.element),
            if a_turned { m } else { k },
            a_step,
            (&raw const beta).cast(),
            pointer(batched.out),
            kind(batched.out_element),
            n,
            i64::from(m) * i64::from(n),
            count,
            compute(batched.element, batched.tf32),
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(|error| GpuError::Driver { what: "multiply with cuBLAS", error: error.to_string() })
}

/// The type that cuBLAS knows it by.
fn kind(element: Element) -> sys::cudaDataType {
    match element {
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        Element::F16 => sys::cudaDataType::CUDA_R_16F,
        Element::BF16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

/// What sums and factors are computed in.
fn compute(element: Element, tf32: bool) -> sys::cublasComputeType_t {
    match element {
        Element::F32 if tf32 => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    }
}

/// Made at first use, by a thread whose turn it is.
fn handle(gpu: &Gpu) -> Result<&Handle, GpuError> {
    let handle = gpu.cublas.get_or_init(|| {
        // SAFETY: looks for the library only.
        if !unsafe { sys::is_culib_present() } {
            return Err(String::new());
        }
        let handle = result::create_handle().map_err(|error| error.to_string())?;
        let workspace = gpu.alloc_exact(WORKSPACE_BYTES).map_err(|error| error.to_string())?;
        let lock = std::sync::Mutex::new(());
        let handle = Handle { handle, lock, workspace };
        // SAFETY: the stream lives as long as the handle. cuBLAS' streams are the driver's.
        unsafe { result::set_stream(handle.handle, gpu.stream().cast()) }
            .map_err(|error| error.to_string())?;
        handle.set_workspace(&handle.workspace).map_err(|error| error.to_string())?;
        Ok(handle)
    });
    handle.as_ref().map_err(|error| match error.as_str() {
        "" => GpuError::NoLibrary { library: "cuBLAS (libcublas)" },
        error => GpuError::Driver { what: "start cuBLAS", error: error.to_owned() },
    })
}
