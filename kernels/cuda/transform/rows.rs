//! What is asked for: rows, where they come from, their factors, and what is made of them.

use super::Factors;
use crate::{DevicePtr, Element, GpuError};

/// Rows times P1 ⊗ P2, quantised or not.
///
/// Each row is taken as X `[n1, n2]`; Y = P1ᵀ · X · P2, an absent factor being the identity.
#[derive(Debug, Clone, Copy)]
pub struct TransformRows {
    /// Number of rows.
    pub rows: usize,
    /// Size of P1; 1 where neither factor is there.
    pub n1: usize,
    /// Size of P2.
    pub n2: usize,
    /// Where the rows come from.
    pub source: RowSource,
    /// P1 and P2.
    pub factors: Factors,
    /// What is written.
    pub output: Output,
    /// Type of all tensors but factors, codes and scales.
    pub element: Element,
}

/// Where rows of n = n1 · n2 elements come from.
#[derive(Debug, Clone, Copy)]
pub enum RowSource {
    /// x `[rows, n]`.
    Plain {
        /// The rows.
        x: DevicePtr,
    },
    /// x / √(mean(x²) + ε) · weight, of x or of x + skip.
    RmsNorm {
        /// `[rows, n]`.
        x: DevicePtr,
        /// `[n]`.
        weight: DevicePtr,
        /// ε.
        epsilon: f32,
        /// (skip, sum), both `[rows, n]`: sum = x + skip is written, and the norm is of it.
        add: Option<(DevicePtr, DevicePtr)>,
    },
    /// silu(gate) · up.
    SwiGlu {
        /// `[rows, n]`.
        gate: DevicePtr,
        /// `[rows, n]`.
        up: DevicePtr,
        /// Elements from a row to the next of both: 2 n where they are halves of one tensor.
        stride: usize,
    },
}

/// What is made of the rows.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    /// Codes and scales, as `DynamicQuantize` has them.
    Codes {
        /// Bits of a code, 2 to 8.
        bits: u32,
        /// Factor on a row's smallest element.
        clip_min: f32,
        /// Factor on its largest.
        clip_max: f32,
        /// int8 `[rows, n]`.
        codes: DevicePtr,
        /// f32 `[rows]`.
        scales: DevicePtr,
    },
    /// The rows themselves, `[rows, n]`.
    Values(DevicePtr),
}

/// A source as kernels take it.
pub(super) struct Operands {
    /// `SOURCE` of rows.cuh.
    pub kind: usize,
    pub x: DevicePtr,
    pub other: Option<DevicePtr>,
    pub weight: Option<DevicePtr>,
    pub sum: Option<DevicePtr>,
    pub stride: usize,
    pub epsilon: f32,
}

impl Operands {
    pub fn of(source: RowSource, n: usize) -> Self {
        let plain = |kind, x| Self {
            kind,
            x,
            other: None,
            weight: None,
            sum: None,
            stride: n,
            epsilon: 0.0,
        };
        match source {
            RowSource::Plain { x } => plain(0, x),
            RowSource::RmsNorm { x, weight, epsilon, add } => {
                let kind = if add.is_some() { 2 } else { 1 };
                let (other, sum) = (add.map(|a| a.0), add.map(|a| a.1));
                Self { other, weight: Some(weight), sum, epsilon, ..plain(kind, x) }
            }
            RowSource::SwiGlu { gate, up, stride } => {
                Self { other: Some(up), stride, ..plain(3, gate) }
            }
        }
    }

    /// Tensors that a row's elements are read from.
    pub fn parts(&self) -> usize {
        1 + usize::from(self.other.is_some())
    }

    /// The most elements, up to `most`, that one load may have: they divide rows and strides, and
    /// all addresses are multiples of them.
    pub fn load(&self, n2: usize, most: usize, element: Element) -> usize {
        let pointers = [Some(self.x), self.other, self.weight, self.sum];
        let fits = |load: &usize| {
            let bytes = (load * element.bytes()) as u64;
            let aligned = |p: &DevicePtr| p.0.is_multiple_of(bytes);
            n2.is_multiple_of(*load)
                && self.stride.is_multiple_of(*load)
                && pointers.iter().flatten().all(aligned)
        };
        [8, 4, 2].into_iter().filter(|load| *load <= most).find(fits).unwrap_or(1)
    }
}

impl TransformRows {
    /// Elements of a row.
    pub fn n(&self) -> usize {
        self.n1 * self.n2
    }

    pub(super) fn operands(&self) -> Operands {
        Operands::of(self.source, self.n())
    }

    /// Bits of the codes.
    pub(super) fn bits(&self) -> Option<u32> {
        match self.output {
            Output::Codes { bits, .. } => Some(bits),
            Output::Values(_) => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), GpuError> {
        let refuse = |message: String| Err(GpuError::unsupported(message));
        let n = self.n();
        if n == 0 || n > 1 << 16 || self.n1 > 1 << 16 {
            return refuse(format!(
                "rows of {} · {} elements can't be transformed",
                self.n1, self.n2
            ));
        }
        if let Some(bits) = self.bits().filter(|bits| !(2..=8).contains(bits)) {
            return refuse(format!("{bits} bits; 2 to 8 are possible"));
        }
        if i32::try_from(self.rows).is_err() {
            return refuse(format!("{} rows are too many", self.rows));
        }
        if self.factors.element != Element::F32 && self.factors.element != self.element {
            return refuse("factors must be f32 or of the type of the rows".to_owned());
        }
        if self.operands().stride < n {
            return refuse(format!("rows of {n} elements overlap"));
        }
        Ok(())
    }
}
