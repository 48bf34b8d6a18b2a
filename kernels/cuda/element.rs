//! How float tensors are stored on the device.

/// How float tensors are stored on the device; arithmetic is in f32 all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Element {
    /// 32 bits.
    F32,
    /// IEEE half precision.
    #[default]
    F16,
    /// bfloat16.
    BF16,
}

impl Element {
    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The definition that kernels are compiled with: `T` is the type in `common.cuh`.
    pub const fn define(self) -> (&'static str, &'static str) {
        match self {
            Self::F32 => ("T", "float"),
            Self::F16 => ("T", "half_t"),
            Self::BF16 => ("T", "bf16_t"),
        }
    }

    /// Short name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }
}
