//! The kernels' sources.

use crate::{Archs, Source};

type Variants = &'static [&'static [(&'static str, &'static str)]];

/// The layout of the cache stands in front of each source.
macro_rules! source {
    ($file:literal, $archs:expr, $variants:expr $(, $header:literal)*) => {
        Source {
            name: concat!("attention/", $file),
            text: concat!(
                include_str!("layout.cuh"), "\n",
                $(include_str!($header), "\n",)*
                include_str!($file)
            ),
            archs: $archs,
            variants: $variants,
        }
    };
}

/// Every format, and heads of usual and unusual sizes, for checks.
const TENSOR_CORES: Variants = &[
    &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4")],
    &[("T", "bf16_t"), ("HEAD_DIM", "80"), ("FORMAT", "16")],
    &[("T", "half_t"), ("HEAD_DIM", "24"), ("FORMAT", "8")],
];

/// Rotary embedding, matrix, write to the cache.
pub(super) static PREPARE: Source = source!(
    "prepare.cu",
    Archs::All,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4")],
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4"), ("COLUMN_WARPS", "4")],
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "16"), ("ANGLE", "half_t")],
        &[("T", "bf16_t"), ("HEAD_DIM", "80"), ("FORMAT", "8")],
        &[("T", "float"), ("HEAD_DIM", "64"), ("FORMAT", "32")],
        &[("T", "float"), ("HEAD_DIM", "64"), ("FORMAT", "4")],
    ],
    "mma.cuh",
    "heads.cuh",
    "head_matrix.cuh",
    "prepare_rows.cuh"
);

/// The same for many rows.
pub(super) static PREPARE_MANY: Source = source!(
    "prepare_many.cu",
    Archs::All,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4")],
        &[("T", "bf16_t"), ("HEAD_DIM", "64"), ("FORMAT", "8")],
    ],
    "mma.cuh",
    "heads.cuh",
    "prepare_rows.cuh"
);

/// Products by Hopper's own instructions.
pub(super) const BY_WGMMA: (&str, &str) = ("WGMMA", "1");

/// The same by Hopper's own instructions.
pub(super) static PREPARE_MANY_HOPPER: Source = source!(
    "prepare_many.cu",
    Archs::Hopper,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4"), BY_WGMMA],
        &[("T", "bf16_t"), ("HEAD_DIM", "128"), ("FORMAT", "16"), ("ANGLE", "bf16_t"), BY_WGMMA],
        &[("T", "half_t"), ("HEAD_DIM", "64"), ("FORMAT", "8"), BY_WGMMA],
    ],
    "mma.cuh",
    "heads.cuh",
    "prepare_rows.cuh",
    "wgmma.cuh"
);

/// Few new positions.
pub(super) static DECODE: Source =
    source!("decode.cu", Archs::All, TENSOR_CORES, "mma.cuh", "decode_group.cuh");

/// Up to 8 rows of queries a tile.
const HALF: (&str, &str) = ("HALVES", "1");

/// How many blocks are a cluster.
pub(super) const CLUSTER: (&str, &str) = ("CLUSTER", "8");

/// Few new positions, the parts of the context in clusters.
pub(super) static DECODE_IN_CLUSTERS: Source = source!(
    "decode.cu",
    Archs::Hopper,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4"), CLUSTER, HALF],
        &[("T", "bf16_t"), ("HEAD_DIM", "80"), ("FORMAT", "16"), CLUSTER],
    ],
    "mma.cuh",
    "decode_group.cuh"
);

/// `DECODE` does what `PREPARE` does as well.
pub(super) const FUSED: (&str, &str) = ("FUSED", "1");

/// `DECODE` and what comes before it.
pub(super) static STEP: Source = source!(
    "decode.cu",
    Archs::All,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4"), FUSED, HALF],
        &[("T", "bf16_t"), ("HEAD_DIM", "80"), ("FORMAT", "16"), ("ANGLE", "bf16_t"), FUSED],
        &[("T", "half_t"), ("HEAD_DIM", "24"), ("FORMAT", "8"), FUSED],
        &[("T", "bf16_t"), ("HEAD_DIM", "256"), ("FORMAT", "4"), ("WARPS", "4"), FUSED],
    ],
    "mma.cuh",
    "heads.cuh",
    "head_matrix.cuh",
    "decode_group.cuh",
    "decode_new.cuh"
);

/// The same in clusters.
pub(super) static STEP_IN_CLUSTERS: Source = source!(
    "decode.cu",
    Archs::Hopper,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "4"), CLUSTER, FUSED, HALF],
        &[("T", "half_t"), ("HEAD_DIM", "64"), ("FORMAT", "16"), CLUSTER, FUSED],
    ],
    "mma.cuh",
    "heads.cuh",
    "head_matrix.cuh",
    "decode_group.cuh",
    "decode_new.cuh"
);

/// Many new positions.
pub(super) static PREFILL: Source = source!("prefill.cu", Archs::All, TENSOR_CORES, "mma.cuh");

/// Many new positions, by Hopper's own instructions.
pub(super) static PREFILL_HOPPER: Source = source!(
    "prefill_hopper.cu",
    Archs::Hopper,
    &[
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "16")],
        &[("T", "bf16_t"), ("HEAD_DIM", "64"), ("FORMAT", "16")],
    ],
    "mma.cuh",
    "wgmma.cuh"
);

/// Many new positions in f32.
pub(super) static PREFILL_F32: Source = source!(
    "prefill_f32.cu",
    Archs::All,
    &[
        &[("T", "float"), ("HEAD_DIM", "128"), ("FORMAT", "32")],
        &[("T", "float"), ("HEAD_DIM", "256"), ("FORMAT", "4"), ("TILE", "16")],
    ]
);

/// The plain way, for few positions in f32.
pub(super) static NAIVE: Source = source!(
    "naive.cu",
    Archs::All,
    &[
        &[("T", "float"), ("HEAD_DIM", "128"), ("FORMAT", "32")],
        &[("T", "float"), ("HEAD_DIM", "64"), ("FORMAT", "4")],
        &[("T", "half_t"), ("HEAD_DIM", "128"), ("FORMAT", "8")],
    ]
);

/// A source of learning's attention, by one kind of products.
macro_rules! dense {
    ($file:literal, $archs:expr, $variants:expr, $products:literal $(, $header:literal)*) => {
        Source {
            name: concat!("attention/", $file),
            text: concat!(
                "#include \"common.cuh\"\n",
                include_str!("mma.cuh"), "\n",
                $(include_str!($header), "\n",)*
                include_str!("dense_tiles.cuh"), "\n",
                include_str!($products), "\n",
                include_str!("dense_problem.cuh"), "\n",
                include_str!($file)
            ),
            archs: $archs,
            variants: $variants,
        }
    };
}

/// These and those below as `Kernel::shape` of dense.rs has them.
const DENSE_SIZES: Variants = &[
    &[("D", "16"), ("GROUPS", "2")],
    &[("D", "64"), ("GROUPS", "2")],
    &[("D", "112"), ("GROUPS", "1")],
    &[("D", "128"), ("GROUPS", "1")],
];

/// Whole sequences without a cache.
pub(super) static DENSE: Source = dense!("dense.cu", Archs::All, DENSE_SIZES, "dense_mma.cuh");

/// Their gradients.
pub(super) static DENSE_GRADS: Source =
    dense!("dense_grads.cu", Archs::All, DENSE_SIZES, "dense_mma.cuh");

/// Whole sequences without a cache, by Hopper's own instructions.
pub(super) static DENSE_HOPPER: Source = dense!(
    "dense.cu",
    Archs::Hopper,
    &[
        &[("D", "64"), ("GROUPS", "1"), ("BLOCKS", "4")],
        &[("D", "128"), ("GROUPS", "2"), ("BLOCKS", "1")],
    ],
    "dense_wgmma.cuh",
    "wgmma.cuh"
);

/// Their gradients.
pub(super) static DENSE_GRADS_HOPPER: Source = dense!(
    "dense_grads.cu",
    Archs::Hopper,
    &[
        &[("D", "64"), ("GROUPS", "1"), ("BLOCKS", "2")],
        &[("D", "128"), ("GROUPS", "2"), ("BLOCKS", "1")],
    ],
    "dense_wgmma.cuh",
    "wgmma.cuh"
);
