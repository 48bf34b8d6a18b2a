//! Quantisation: widths, transforms and the passes that apply them.
pub mod bits;

pub use bits::BitWidths;
