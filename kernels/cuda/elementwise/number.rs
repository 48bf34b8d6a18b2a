//! Types of elements.

use crate::{Args, Element, Function, Gpu, GpuError, Launch, Source};

/// Type of the elements of a tensor on the device, in the order of the codes in cast.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// A byte that is 0 or 1.
    Bool,
}

impl Number {
    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// The definition that kernels are compiled with: `A` is the type of elements.
    pub const fn define(self) -> (&'static str, &'static str) {
        let name = match self {
            Self::F32 => "float",
            Self::F16 => "half_t",
            Self::BF16 => "bf16_t",
            Self::I64 => "int64_t",
            Self::I32 => "int32_t",
            Self::I8 => "int8_t",
            Self::U8 => "uint8_t",
            Self::Bool => "bool_t",
        };
        ("A", name)
    }
}

impl From<Element> for Number {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 => Self::F32,
            Element::F16 => Self::F16,
            Element::BF16 => Self::BF16,
        }
    }
}

/// The sets of definitions for kernels of elements of any type.
pub(super) const ALL: &[&[(&str, &str)]] = &[
    &[Number::F32.define()],
    &[Number::F16.define()],
    &[Number::BF16.define()],
    &[Number::I64.define()],
    &[Number::I32.define()],
    &[Number::I8.define()],
    &[Number::U8.define()],
    &[Number::Bool.define()],
];

/// Those for kernels of floats only.
pub(super) const FLOATS: &[&[(&str, &str)]] =
    &[&[Number::F32.define()], &[Number::F16.define()], &[Number::BF16.define()]];

/// Those for kernels that move bytes.
pub(super) const WIDTHS: &[&[(&str, &str)]] =
    &[&[("W", "1")], &[("W", "2")], &[("W", "4")], &[("W", "8")], &[("W", "16")]];

/// The definition for elements of `bytes` bytes.
pub(super) fn width(bytes: usize) -> Result<(&'static str, &'static str), GpuError> {
    WIDTHS
        .iter()
        .map(|variant| variant[0])
        .find(|(_, value)| value.parse() == Ok(bytes))
        .ok_or_else(|| GpuError::unsupported(format!("elements of {bytes} bytes can't be moved")))
}

/// A kernel for elements of type `number`.
pub(super) fn typed(
    gpu: &Gpu,
    source: &'static Source,
    entry: &str,
    number: Number,
) -> Result<Function, GpuError> {
    gpu.function(source, entry, &[number.define()])
}

/// A kernel for elements of `bytes` bytes.
pub(super) fn of_width(
    gpu: &Gpu,
    source: &'static Source,
    entry: &str,
    bytes: usize,
) -> Result<Function, GpuError> {
    gpu.function(source, entry, &[width(bytes)?])
}

/// Fails for floats only operators on other types.
pub(super) fn float_only(what: &str, number: Number) -> Result<(), GpuError> {
    match number.is_float() {
        true => Ok(()),
        false => Err(GpuError::unsupported(format!("{what} on the device takes floats only"))),
    }
}

/// Threads of a block of elementwise kernels.
const THREADS: usize = 256;

/// A size as kernels count: below 2³¹, so that no sum of two overflows.
pub(super) fn count(n: usize) -> Result<i32, GpuError> {
    i32::try_from(n)
        .map_err(|_| GpuError::unsupported(format!("{n} elements are too many for one kernel")))
}

/// A size as a dimension of a grid but the first.
pub(super) fn grid(n: usize) -> Result<u32, GpuError> {
    u32::try_from(n)
        .ok()
        .filter(|n| *n <= MAX_GRID)
        .ok_or_else(|| GpuError::unsupported(format!("{n} blocks are too many for one kernel")))
}

/// The most blocks along the second and third dimension.
pub(super) const MAX_GRID: u32 = 65_535;

/// Launches a thread for each of `n` elements.
pub(super) fn launch(gpu: &Gpu, f: &Function, n: usize, args: &Args) -> Result<(), GpuError> {
    count(n)?;
    gpu.launch(f, Launch::linear(n.div_ceil(THREADS), THREADS as u32).overlapping(), args)
}

/// Launches `blocks` blocks of `threads`.
pub(super) fn launch_blocks(
    gpu: &Gpu,
    f: &Function,
    blocks: usize,
    threads: u32,
    args: &Args,
) -> Result<(), GpuError> {
    count(blocks)?;
    gpu.launch(f, Launch::linear(blocks, threads).overlapping(), args)
}
