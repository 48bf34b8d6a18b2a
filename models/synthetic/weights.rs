//! The weights of a model, and where they lie in its data file.

use planish_ir::DataType;

/// Tensors from this size on start at a page, so that readers can map them one by one.
const PAGE_ALIGNED_FROM: u64 = 1 << 20;
const PAGE: u64 = 4096;
const CACHE_LINE: u64 = 64;

/// What a weight is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Normal numbers.
    Matrix,
    /// A matrix whose columns are channels of the residual stream, a few of them large.
    IntoStream,
    /// About 1.
    Norm,
}

/// A weight to be made.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
}

impl Weight {
    /// The last size.
    pub(super) fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of all sizes but the last.
    pub(super) fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }
}

/// A weight and the offset of its first byte.
pub(super) struct Placed<'a> {
    pub(super) weight: &'a Weight,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// The data file.
pub(super) struct Layout<'a> {
    pub(super) dtype: DataType,
    pub(super) weights: Vec<Placed<'a>>,
    pub(super) bytes: u64,
}

impl<'a> Layout<'a> {
    /// One weight after the other.
    pub(super) fn new(weights: &'a [Weight], dtype: DataType) -> Self {
        let mut layout = Self { dtype, weights: Vec::new(), bytes: 0 };
        for weight in weights {
            let bytes = (weight.rows() * weight.columns() * dtype.bits() / 8) as u64;
            let alignment = if bytes >= PAGE_ALIGNED_FROM { PAGE } else { CACHE_LINE };
            let offset = layout.bytes.next_multiple_of(alignment);
            layout.weights.push(Placed { weight, offset, bytes });
            layout.bytes = offset + bytes;
        }
        layout
    }
}
