//! Descriptions of matrices for Hopper's copy engine.

use cudarc::driver::sys;

use crate::error::Doing;
use crate::{DevicePtr, Gpu, GpuError};

/// A row-major matrix in device memory and the box of it that one copy moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    /// Its first element, aligned to 16 bytes.
    pub at: DevicePtr,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element: usize,
    /// Elements a row.
    pub columns: usize,
    /// Bytes from row to row, a multiple of 16.
    pub row_bytes: usize,
    /// Rows.
    pub rows: usize,
    /// Elements and rows of a box; what lies outside of the matrix comes as zeros.
    pub tile: (usize, usize),
    /// Rows of 128 bytes are swizzled, as `wgmma` reads them.
    pub swizzled: bool,
}

/// A `CUtensorMap`.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorMap([u64; 16]);

impl TensorMap {
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(&self.0)
    }
}

impl Matrix {
    /// Encodes the map.
    pub fn map(&self, gpu: &Gpu) -> Result<TensorMap, GpuError> {
        use sys::CUtensorMapDataType_enum as Data;
        use sys::CUtensorMapSwizzle_enum as Swizzle;
        let data = match self.element {
            1 => Data::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2 => Data::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            4 => Data::CU_TENSOR_MAP_DATA_TYPE_UINT32,
            _ => Data::CU_TENSOR_MAP_DATA_TYPE_UINT64,
        };
        let swizzle = match self.swizzled {
            true => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            false => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        };
        let sizes = [self.columns as u64, self.rows as u64];
        let strides = [self.row_bytes as u64];
        let (tile, ones) = ([self.tile.0 as u32, self.tile.1 as u32], [1u32; 2]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let _turn = gpu.bind()?;
        // SAFETY: the arrays are as long as the rank says; the driver checks the rest.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                data,
                2,
                self.at.0 as *mut std::ffi::c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                ones.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .doing("describe a matrix to the copy engine")?;
        Ok(TensorMap(map.opaque))
    }
}
