//! The kernels' sources, and what each is compiled with.

use crate::{Archs, Source};

/// Kernels of this area.
pub static SOURCES: &[&Source] = &[&NAIVE, &MMA, &MMA_S4, &WGMMA, &WEIGHT_ONLY, &WEIGHT_ONLY_F32];

const F32: (&str, &str) = ("T", "float");
const F16: (&str, &str) = ("T", "half_t");
const BF16: (&str, &str) = ("T", "bf16_t");
const W4: (&str, &str) = ("WEIGHT_BITS", "4");
const W8: (&str, &str) = ("WEIGHT_BITS", "8");
const CHANNELS: (&str, &str) = ("GROUPED", "0");
const GROUPS: (&str, &str) = ("GROUPED", "1");
const STAGE_GROUPS: (&str, &str) = ("GROUPED", "2");
const ALIGNED: (&str, &str) = ("ALIGNED", "1");
const UNALIGNED: (&str, &str) = ("ALIGNED", "0");
const BYTES: (&str, &str) = ("S4", "0");
const NIBBLES: (&str, &str) = ("S4", "1");
const TALL: (&str, &str) = ("TILE_M", "128");
const FLAT: (&str, &str) = ("TILE_M", "64");
const WIDE: (&str, &str) = ("BLOCKS", "2");
const NARROW: (&str, &str) = ("BLOCKS", "1");
const CODES: (&str, &str) = ("FLOATS", "0");
const FLOATS: (&str, &str) = ("FLOATS", "1");
const THREE: (&str, &str) = ("PARTS", "3");
const BULK: (&str, &str) = ("BULK", "1");
const NO_BULK: (&str, &str) = ("BULK", "0");
const WHOLE: (&str, &str) = ("SPLIT", "1");
const SHARED: (&str, &str) = ("SPLIT", "2");
const BAND: (&str, &str) = ("BAND", "8");

pub(super) static NAIVE: Source = Source {
    name: "gemm/naive.cu",
    text: include_str!("naive.cu"),
    archs: Archs::All,
    variants: &[&[F32, W4], &[F16, W8], &[BF16, W4]],
};

pub(super) static MMA: Source = Source {
    name: "gemm/mma.cu",
    text: include_str!("mma.cu"),
    archs: Archs::All,
    variants: &[
        &[F16, W4, BYTES, CHANNELS, ALIGNED],
        &[F16, W8, BYTES, CHANNELS, ALIGNED],
        &[BF16, W4, BYTES, GROUPS, ALIGNED],
        &[F32, W8, BYTES, GROUPS, UNALIGNED],
    ],
};

/// The same file with 4-bit tensor cores.
pub(super) static MMA_S4: Source = Source {
    name: "gemm/mma.cu (s4)",
    text: include_str!("mma.cu"),
    archs: Archs::Int4TensorCores,
    variants: &[
        &[F16, W4, NIBBLES, CHANNELS, ALIGNED],
        &[F32, W4, NIBBLES, GROUPS, ALIGNED],
        &[BF16, W4, NIBBLES, CHANNELS, UNALIGNED],
    ],
};

pub(super) static WGMMA: Source = Source {
    name: "gemm/wgmma.cu",
    text: include_str!("wgmma.cu"),
    archs: Archs::Hopper,
    variants: &[
        &[F16, W4, TALL, WIDE, ("STAGES", "5"), BAND, WHOLE, CODES, CHANNELS, BULK],
        &[F16, W4, TALL, WIDE, ("STAGES", "5"), BAND, WHOLE, CODES, CHANNELS, BULK, THREE],
        &[F32, W4, TALL, WIDE, ("STAGES", "6"), BAND, WHOLE, CODES, CHANNELS, NO_BULK],
        &[F16, W8, TALL, WIDE, ("STAGES", "3"), BAND, WHOLE, CODES, CHANNELS, BULK],
        &[BF16, W4, TALL, NARROW, ("STAGES", "8"), BAND, WHOLE, CODES, STAGE_GROUPS, BULK],
        &[F16, W8, TALL, NARROW, ("STAGES", "5"), BAND, WHOLE, CODES, GROUPS, BULK],
        &[F16, W8, FLAT, NARROW, ("STAGES", "8"), BAND, WHOLE, CODES, CHANNELS, BULK],
        &[F16, W4, TALL, WIDE, ("STAGES", "6"), BAND, WHOLE, FLOATS, CHANNELS, BULK],
        &[F16, W4, TALL, NARROW, ("STAGES", "8"), BAND, SHARED, CODES, CHANNELS, BULK],
        &[BF16, W4, TALL, NARROW, ("STAGES", "8"), BAND, SHARED, FLOATS, CHANNELS, BULK, THREE],
        &[BF16, W8, TALL, NARROW, ("STAGES", "7"), BAND, WHOLE, FLOATS, STAGE_GROUPS, BULK],
    ],
};

pub(super) static WEIGHT_ONLY: Source = Source {
    name: "gemm/weight_only.cu",
    text: include_str!("weight_only.cu"),
    archs: Archs::All,
    variants: &[
        &[F16, W4, CHANNELS],
        &[BF16, W8, CHANNELS],
        &[BF16, W4, GROUPS],
        &[F16, W8, GROUPS],
    ],
};

pub(super) static WEIGHT_ONLY_F32: Source = Source {
    name: "gemm/weight_only_f32.cu",
    text: include_str!("weight_only_f32.cu"),
    archs: Archs::All,
    variants: &[&[F32, W4], &[F32, W8], &[F16, W4]],
};
