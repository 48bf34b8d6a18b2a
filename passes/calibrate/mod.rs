//! Learning transforms and clipping on a sample of text, one block of the decoder after the other.

pub mod cut;

pub use cut::{BlockModel, CutError, Outside, cut_block};
