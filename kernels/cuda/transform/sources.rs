//! The kernels' sources.

use crate::{Archs, Source};

/// Kernels of this area.
pub static SOURCES: &[&Source] =
    &[&REFERENCE, &ROWWISE, &PACK, &TENSOR, &TENSOR_WGMMA, &CLUSTER, &BLOCK, &HEADS];

/// What a kernel is compiled with.
type Variant = &'static [(&'static str, &'static str)];

/// Any sizes, plainly.
pub(super) static REFERENCE: Source = Source {
    name: "transform/reference.cu",
    text: concat!(
        include_str!("rows.cuh"),
        include_str!("quantise.cuh"),
        include_str!("reduce.cuh"),
        include_str!("reference.cu")
    ),
    archs: Archs::All,
    variants: &[
        &[("T", "half_t"), ("FACTOR_T", "float"), ("SOURCE", "0")],
        &[("T", "float"), ("FACTOR_T", "float"), ("SOURCE", "2")],
        &[("T", "bf16_t"), ("FACTOR_T", "bf16_t"), ("SOURCE", "3")],
    ],
};

/// Rows without factors.
pub(super) static ROWWISE: Source = Source {
    name: "transform/rowwise.cu",
    text: concat!(
        include_str!("rows.cuh"),
        include_str!("quantise.cuh"),
        include_str!("reduce.cuh"),
        include_str!("rowwise.cu")
    ),
    archs: Archs::All,
    variants: &[
        &[("T", "half_t"), ("SOURCE", "1"), ("ROW", "4096"), ("VEC", "8"), ("THREADS", "256")],
        &[("T", "float"), ("SOURCE", "2"), ("ROW", "4095"), ("VEC", "1"), ("THREADS", "512")],
        &[("T", "bf16_t"), ("SOURCE", "3"), ("ROW", "14336"), ("VEC", "8"), ("THREADS", "512")],
    ],
};

/// Factors for tensor cores.
pub(super) static PACK: Source = Source {
    name: "transform/pack.cu",
    text: concat!(
        include_str!("tensor_cores.cuh"),
        include_str!("packing.cuh"),
        include_str!("pack.cu")
    ),
    archs: Archs::All,
    variants: &[&[("FACTOR_T", "float")], &[("FACTOR_T", "half_t")], &[("FACTOR_T", "bf16_t")]],
};

macro_rules! block {
    ($t:literal, $n1:literal, $n2:literal, $p2:literal, $source:literal, $split:literal, $columns:literal) => {
        &[
            ("T", $t),
            ("N1", $n1),
            ("N2", $n2),
            ("HAS_P1", "1"),
            ("HAS_P2", $p2),
            ("SOURCE", $source),
            ("SPLIT", $split),
            ("SPLIT_P", $split),
            ("P1_SHARED", "0"),
            ("MT", "1"),
            ("VEC", "8"),
            ("COLUMN_WARPS", $columns),
        ]
    };
}

/// The text of a file with tiles.cuh, and what that needs, in front.
macro_rules! on_tiles {
    ($file:literal) => {
        concat!(
            include_str!("rows.cuh"),
            include_str!("quantise.cuh"),
            include_str!("reduce.cuh"),
            include_str!("tensor_cores.cuh"),
            include_str!("packing.cuh"),
            include_str!("wgmma.cuh"),
            include_str!("tiles.cuh"),
            include_str!($file)
        )
    };
}

/// Rows with factors, on tensor cores.
pub(super) static TENSOR: Source = Source {
    name: "transform/tensor.cu",
    text: on_tiles!("tensor.cu"),
    archs: Archs::All,
    variants: &[LLAMA_NORM, LLAMA_SWIGLU, LEFT, RIGHT_VALUES],
};

/// The same with products of warpgroups.
pub(super) static TENSOR_WGMMA: Source = Source {
    name: "transform/tensor.cu with wgmma",
    text: on_tiles!("tensor.cu"),
    archs: Archs::Hopper,
    variants: &[WGMMA_NORM, WGMMA_SWIGLU, WGMMA_LEFT],
};

#[rustfmt::skip]
const WGMMA_NORM: Variant = &[
    ("T", "half_t"), ("N1", "64"), ("N2", "64"), ("HAS_P1", "1"), ("HAS_P2", "1"), ("SOURCE", "2"),
    ("QUANTISE", "1"), ("SPLIT", "0"), ("SPLIT_P", "0"), ("P1_SHARED", "0"), ("MT", "1"), ("GROUPS", "4"),
    ("RESIDENT", "1"), ("VEC", "8"), ("PREFETCH", "1"), ("WGMMA", "1"),
];
#[rustfmt::skip]
const WGMMA_SWIGLU: Variant = &[
    ("T", "half_t"), ("N1", "112"), ("N2", "128"), ("HAS_P1", "1"), ("HAS_P2", "1"), ("SOURCE", "3"),
    ("QUANTISE", "1"), ("SPLIT", "1"), ("SPLIT_P", "1"), ("P1_SHARED", "1"), ("MT", "1"), ("GROUPS", "1"),
    ("RESIDENT", "1"), ("VEC", "8"), ("PREFETCH", "1"), ("WGMMA", "1"),
];
#[rustfmt::skip]
const WGMMA_LEFT: Variant = &[
    ("T", "bf16_t"), ("N1", "57"), ("N2", "228"), ("HAS_P1", "1"), ("HAS_P2", "0"), ("SOURCE", "0"),
    ("QUANTISE", "0"), ("SPLIT", "0"), ("SPLIT_P", "0"), ("P1_SHARED", "0"), ("MT", "1"), ("GROUPS", "1"),
    ("RESIDENT", "1"), ("VEC", "4"), ("PREFETCH", "0"), ("WGMMA", "1"),
];

#[rustfmt::skip]
const LLAMA_NORM: Variant = &[
    ("T", "half_t"), ("N1", "64"), ("N2", "64"), ("HAS_P1", "1"), ("HAS_P2", "1"),
    ("SOURCE", "2"), ("QUANTISE", "1"), ("SPLIT", "0"), ("SPLIT_P", "0"), ("P1_SHARED", "0"), ("MT", "1"), ("GROUPS", "4"), ("RESIDENT", "1"), ("VEC", "8"), ("PREFETCH", "1"), ("WGMMA", "0"),
];
#[rustfmt::skip]
const LLAMA_SWIGLU: Variant = &[
    ("T", "half_t"), ("N1", "112"), ("N2", "128"), ("HAS_P1", "1"), ("HAS_P2", "1"),
    ("SOURCE", "3"), ("QUANTISE", "1"), ("SPLIT", "1"), ("SPLIT_P", "1"), ("P1_SHARED", "1"), ("MT", "1"), ("GROUPS", "1"), ("RESIDENT", "1"), ("VEC", "8"), ("PREFETCH", "1"), ("WGMMA", "0"),
];
#[rustfmt::skip]
const LEFT: Variant = &[
    ("T", "bf16_t"), ("N1", "9"), ("N2", "60"), ("HAS_P1", "1"), ("HAS_P2", "0"),
    ("SOURCE", "0"), ("QUANTISE", "1"), ("SPLIT", "1"), ("SPLIT_P", "1"), ("P1_SHARED", "1"), ("MT", "1"), ("GROUPS", "4"), ("RESIDENT", "1"), ("VEC", "4"), ("PREFETCH", "1"), ("WGMMA", "0"),
];
#[rustfmt::skip]
const RIGHT_VALUES: Variant = &[
    ("T", "bf16_t"), ("N1", "24"), ("N2", "24"), ("HAS_P1", "0"), ("HAS_P2", "1"),
    ("SOURCE", "1"), ("QUANTISE", "0"), ("SPLIT", "0"), ("SPLIT_P", "0"), ("P1_SHARED", "0"), ("MT", "2"), ("GROUPS", "4"), ("RESIDENT", "1"), ("VEC", "8"), ("PREFETCH", "0"), ("WGMMA", "0"),
];

/// Few short rows with factors, a block each.
pub(super) static BLOCK: Source = Source {
    name: "transform/block.cu",
    text: on_tiles!("block.cu"),
    archs: Archs::All,
    variants: &[
        block!["half_t", "64", "64", "1", "1", "0", "1"],
        block!["bf16_t", "32", "128", "0", "0", "1", "4"],
        block!["half_t", "24", "24", "1", "3", "1", "1"],
    ],
};

/// Few rows with factors, on clusters of blocks.
pub(super) static CLUSTER: Source = Source {
    name: "transform/cluster.cu",
    text: concat!(
        include_str!("rows.cuh"),
        include_str!("quantise.cuh"),
        include_str!("reduce.cuh"),
        include_str!("tensor_cores.cuh"),
        include_str!("packing.cuh"),
        include_str!("cluster.cu")
    ),
    archs: Archs::Hopper,
    variants: &[CLUSTER_NORM, CLUSTER_SWIGLU, CLUSTER_LEFT],
};

#[rustfmt::skip]
const CLUSTER_NORM: Variant = &[
    ("T", "half_t"), ("N1", "64"), ("N2", "64"), ("HAS_P2", "1"), ("SOURCE", "2"), ("QUANTISE", "1"),
    ("SPLIT", "0"), ("SPLIT_P", "0"), ("CLUSTER", "4"),
];
#[rustfmt::skip]
const CLUSTER_SWIGLU: Variant = &[
    ("T", "half_t"), ("N1", "112"), ("N2", "128"), ("HAS_P2", "1"), ("SOURCE", "3"), ("QUANTISE", "1"),
    ("SPLIT", "1"), ("SPLIT_P", "1"), ("CLUSTER", "8"),
];
#[rustfmt::skip]
const CLUSTER_LEFT: Variant = &[
    ("T", "bf16_t"), ("N1", "17"), ("N2", "24"), ("HAS_P2", "0"), ("SOURCE", "0"), ("QUANTISE", "0"),
    ("SPLIT", "0"), ("SPLIT_P", "0"), ("CLUSTER", "2"),
];

/// Vectors of heads.
pub(super) static HEADS: Source = Source {
    name: "transform/heads.cu",
    text: include_str!("heads.cu"),
    archs: Archs::All,
    variants: &[
        &[("T", "half_t"), ("FACTOR_T", "float")],
        &[("T", "float"), ("FACTOR_T", "float")],
        &[("T", "bf16_t"), ("FACTOR_T", "bf16_t")],
    ],
};
