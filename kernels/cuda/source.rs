//! Kernel sources.

/// One file of kernels.
#[derive(Debug)]
pub struct Source {
    /// Name for messages.
    pub name: &'static str,
    /// CUDA C++.
    pub text: &'static str,
    /// Architectures that it is for.
    pub archs: Archs,
    /// The sets of definitions that it is compiled with, for checks without a GPU.
    pub variants: &'static [&'static [(&'static str, &'static str)]],
}

/// Which architectures a source is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archs {
    /// All that planish knows.
    All,
    /// Hopper's own instructions: `wgmma`, `setmaxnreg`.
    Hopper,
    /// Those with 4-bit tensor cores, and Hopper, which emulates them slowly.
    Int4TensorCores,
}

impl Archs {
    /// Names as NVRTC has them, without `sm_`.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &["80", "86", "89", "90a", "120"],
            Self::Hopper => &["90a"],
            Self::Int4TensorCores => &["80", "86", "89", "90a"],
        }
    }
}

/// What all sources may include, as (name, text).
pub(crate) const HEADERS: &[(&str, &str)] = &[
    ("common.cuh", include_str!("common.cuh")),
    ("mail.cuh", include_str!("mail.cuh")),
    ("async.cuh", include_str!("gemm/async.cuh")),
    ("hopper.cuh", include_str!("gemm/hopper.cuh")),
    ("output.cuh", include_str!("gemm/output.cuh")),
    ("tile.cuh", include_str!("gemm/tile.cuh")),
    ("numbers.cuh", include_str!("elementwise/numbers.cuh")),
    ("kronecker_tiles.cuh", include_str!("elementwise/kronecker_tiles.cuh")),
    ("walk.cuh", include_str!("elementwise/walk.cuh")),
    ("lanes.cuh", include_str!("elementwise/lanes.cuh")),
    ("wgmma.cuh", include_str!("gemm/wgmma.cuh")),
    ("wgmma_groups.cuh", include_str!("gemm/wgmma_groups.cuh")),
    ("wgmma_output.cuh", include_str!("gemm/wgmma_output.cuh")),
    ("wgmma_split.cuh", include_str!("gemm/wgmma_split.cuh")),
    ("widen.cuh", include_str!("gemm/widen.cuh")),
];
