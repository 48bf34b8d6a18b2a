//! Floating-point matrix products by cuBLAS.

use std::ffi::c_void;

use cudarc::cublas::{result, sys};

use crate::{DevicePtr, Element, Gpu, GpuError};

/// cuBLAS, ready to use.
pub(crate) struct Handle(sys::cublasHandle_t, std::sync::Mutex<()>);

// SAFETY: used under its lock.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle`, and destroyed here alone.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// `out = x · w`, all row-major and of one element type, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Gemm {
    /// Rows of x.
    pub rows: usize,
    /// Columns of x.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// `[rows, k]`.
    pub x: DevicePtr,
    /// `[k, n]`, or `[n, k]` where `trans_w`.
    pub w: DevicePtr,
    /// The weight is stored transposed.
    pub trans_w: bool,
    /// `[rows, n]`.
    pub out: DevicePtr,
    /// How all three are stored.
    pub element: Element,
    /// Adds to what `out` holds.
    pub accumulate: bool,
}

/// Runs a product on the device's stream.
///
/// # Errors
/// If cuBLAS is not installed or refuses.
pub fn gemm(gpu: &Gpu, gemm: Gemm) -> Result<(), GpuError> {
    let Handle(handle, lock) = handle(gpu)?;
    let size = |n: usize| {
        i32::try_from(n).map_err(|_| GpuError::unsupported(format!("{n} is too large for cuBLAS")))
    };
    let (m, n, k) = (size(gemm.n)?, size(gemm.rows)?, size(gemm.k)?);
    let kind = match gemm.element {
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        Element::F16 => sys::cudaDataType::CUDA_R_16F,
        Element::BF16 => sys::cudaDataType::CUDA_R_16BF,
    };
    use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
    // Row-major products are column-major ones of the transposed matrices, in the other order.
    let (op, lead) = if gemm.trans_w { (CUBLAS_OP_T, k) } else { (CUBLAS_OP_N, m) };
    let (one, beta) = (1f32, f32::from(u8::from(gemm.accumulate)));
    let pointer = |p: DevicePtr| p.0 as *mut c_void;
    gpu.bind()?;
    let _guard = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: callers keep to the sizes of their buffers.
    unsafe {
        result::gemm_ex(
            *handle,
            op,
            CUBLAS_OP_N,
            m,
            n,
            k,
            (&raw const one).cast(),
            pointer(gemm.w),
            kind,
            lead,
            pointer(gemm.x),
            kind,
            k,
            (&raw const beta).cast(),
            pointer(gemm.out),
            kind,
            m,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(|error| GpuError::Driver { what: "multiply with cuBLAS", error: error.to_string() })
}

fn handle(gpu: &Gpu) -> Result<&Handle, GpuError> {
    let handle = gpu.cublas.get_or_init(|| {
        // SAFETY: looks for the library only.
        if !unsafe { sys::is_culib_present() } {
            return Err(String::new());
        }
        gpu.bind().map_err(|error| error.to_string())?;
        let handle = result::create_handle().map_err(|error| error.to_string())?;
        let handle = Handle(handle, std::sync::Mutex::new(()));
        // SAFETY: the stream lives as long as the handle. cuBLAS' streams are the driver's.
        unsafe { result::set_stream(handle.0, gpu.stream().cast()) }
            .map_err(|error| error.to_string())?;
        Ok(handle)
    });
    handle.as_ref().map_err(|error| match error.as_str() {
        "" => GpuError::NoLibrary { library: "cuBLAS (libcublas)" },
        error => GpuError::Driver { what: "start cuBLAS", error: error.to_owned() },
    })
}
