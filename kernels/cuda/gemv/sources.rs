//! The kernels' sources.

use crate::{Archs, Source};

macro_rules! few {
    ($t:literal, $weight_only:literal, $bits:literal, $group:literal) => {
        &[
            ("T", $t),
            ("WEIGHT_ONLY", $weight_only),
            ("BITS", $bits),
            ("GROUP", $group),
            ("WARPS", "8"),
            ("UNROLL", "4"),
        ]
    };
}
macro_rules! many {
    ($t:literal, $weight_only:literal, $bits:literal, $group:literal, $columns:literal) => {
        &[
            ("T", $t),
            ("WEIGHT_ONLY", $weight_only),
            ("BITS", $bits),
            ("GROUP", $group),
            ("COLUMNS", $columns),
            ("WARPS_N", "8"),
            ("WARPS_K", "1"),
            ("TILES", "2"),
            ("CHUNK", "4"),
            ("STAGES", "3"),
            ("CLUSTER", "1"),
        ]
    };
}
macro_rules! many_hopper {
    ($t:literal, $bits:literal, $columns:literal, $unroll:literal, $copy_weights:literal) => {
        &[
            ("T", $t),
            ("WEIGHT_ONLY", "0"),
            ("BITS", $bits),
            ("GROUP", "0"),
            ("COPY_WEIGHTS", $copy_weights),
            ("COLUMNS", $columns),
            ("GROUPS_N", "2"),
            ("GROUPS_K", "2"),
            ("UNROLL", $unroll),
            ("CLUSTER", "2"),
        ]
    };
}
macro_rules! dense {
    ($t:literal, $vector:literal, $rows:literal) => {
        &[
            ("T", $t),
            ("VECTOR", $vector),
            ("ROWS", $rows),
            ("WARPS", "8"),
            ("UNROLL", "4"),
            ("CHUNK", "2048"),
            ("OUTPUTS_A_WARP", "2"),
        ]
    };
}

/// Up to 8 columns against packed weights.
pub(super) static FEW: Source = Source {
    name: "gemv/few.cu",
    text: concat!(
        include_str!("stream.cuh"),
        include_str!("operands.cuh"),
        include_str!("columns.cuh"),
        include_str!("sums.cuh"),
        include_str!("few.cu")
    ),
    archs: Archs::All,
    variants: &[
        few!["half_t", "0", "4", "0"],
        few!["half_t", "0", "4", "32"],
        few!["half_t", "0", "4", "64"],
        few!["float", "0", "8", "0"],
        few!["bf16_t", "0", "8", "64"],
        few!["half_t", "1", "8", "0"],
        few!["half_t", "1", "4", "32"],
        few!["bf16_t", "1", "8", "0"],
        few!["bf16_t", "1", "4", "64"],
        few!["float", "1", "8", "0"],
        few!["float", "1", "4", "32"],
    ],
};

/// Up to 64 columns against packed weights.
pub(super) static MANY: Source = Source {
    name: "gemv/many.cu",
    text: concat!(
        include_str!("stream.cuh"),
        include_str!("operands.cuh"),
        include_str!("columns.cuh"),
        include_str!("sums.cuh"),
        include_str!("cluster.cuh"),
        include_str!("many.cu")
    ),
    archs: Archs::All,
    variants: &[
        many!["half_t", "0", "4", "0", "64"],
        many!["half_t", "0", "4", "64", "16"],
        many!["float", "0", "8", "0", "16"],
        many!["bf16_t", "0", "8", "32", "8"],
        many!["half_t", "1", "8", "0", "32"],
        many!["bf16_t", "1", "4", "64", "16"],
        many!["float", "1", "8", "0", "16"],
    ],
};

/// The same for codes, by Hopper's `wgmma`.
pub(super) static MANY_HOPPER: Source = Source {
    name: "gemv/many_hopper.cu",
    text: concat!(
        include_str!("stream.cuh"),
        include_str!("operands.cuh"),
        include_str!("columns.cuh"),
        include_str!("sums.cuh"),
        include_str!("cluster.cuh"),
        include_str!("wgmma.cuh"),
        include_str!("many_hopper.cu")
    ),
    archs: Archs::Hopper,
    variants: &[
        many_hopper!["half_t", "4", "16", "8", "0"],
        many_hopper!["half_t", "4", "32", "7", "0"],
        many_hopper!["bf16_t", "4", "64", "8", "0"],
        many_hopper!["float", "8", "64", "4", "1"],
    ],
};

/// Dense weights, f32 arithmetic.
pub(super) static DENSE: Source = Source {
    name: "gemv/dense.cu",
    text: concat!(include_str!("stream.cuh"), include_str!("dense.cu")),
    archs: Archs::All,
    variants: &[
        dense!["half_t", "8", "1"],
        dense!["half_t", "1", "2"],
        dense!["bf16_t", "8", "8"],
        dense!["float", "4", "1"],
        dense!["float", "4", "8"],
        dense!["float", "1", "4"],
    ],
};

/// Dense 16-bit weights, inputs by outputs, on tensor cores.
pub(super) static DENSE_TENSOR: Source = Source {
    name: "gemv/dense_tensor.cu",
    text: concat!(
        include_str!("stream.cuh"),
        include_str!("dense_tensor.cuh"),
        include_str!("dense_tensor.cu")
    ),
    archs: Archs::All,
    variants: &[
        &[("T", "half_t"), ("IS_HALF", "1"), ("WARPS", "16"), ("UNROLL", "2"), ("TILES", "1")],
        &[("T", "bf16_t"), ("IS_HALF", "0"), ("WARPS", "16"), ("UNROLL", "2"), ("TILES", "2")],
    ],
};

/// Dense 16-bit weights, outputs by inputs, on tensor cores.
pub(super) static DENSE_TRANSPOSED: Source = Source {
    name: "gemv/dense_transposed.cu",
    text: concat!(
        include_str!("stream.cuh"),
        include_str!("dense_tensor.cuh"),
        include_str!("dense_transposed.cu")
    ),
    archs: Archs::All,
    variants: &[
        &[("T", "half_t"), ("IS_HALF", "1"), ("WARPS", "8"), ("UNROLL", "2"), ("CHUNK", "4096")],
        &[("T", "bf16_t"), ("IS_HALF", "0"), ("WARPS", "8"), ("UNROLL", "2"), ("CHUNK", "4096")],
    ],
};

/// Reading alone, for comparison.
pub(super) static READ: Source = Source {
    name: "gemv/read.cu",
    text: concat!(include_str!("stream.cuh"), include_str!("read.cu")),
    archs: Archs::All,
    variants: &[&[("T", "half_t")]],
};

/// Kernels of this area.
pub static SOURCES: &[&Source] =
    &[&FEW, &MANY, &MANY_HOPPER, &DENSE, &DENSE_TENSOR, &DENSE_TRANSPOSED, &READ];
