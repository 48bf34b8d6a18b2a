//! NumPy's `.npz` archives: a zip of `.npy` files, one a named array.
//!
//! The format is NumPy's NEP 1. Arrays are read in either order and either byte order and handed
//! out row-major and little-endian; they are written as version 1.0, uncompressed.
mod archive;
mod array;
mod header;
mod sink;

pub use archive::{NpzError, read_npz, write_npz};
pub use array::{NpyArray, NpyType};
