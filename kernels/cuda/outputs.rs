//! Outputs of products whose weights lie side by side.

use crate::DevicePtr;

/// Columns of a product from `start` on that go to a tensor of their own.
#[derive(Debug, Clone, Copy)]
pub struct MoreOutput {
    /// The first column, above that of the output before.
    pub start: usize,
    /// T `[rows, stride]`.
    pub to: DevicePtr,
    /// Elements from row to row.
    pub stride: usize,
}
