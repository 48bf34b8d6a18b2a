//! Transforms that leave a model's function as it is and flatten what will be rounded: activations
//! x become x · P before a group of linear layers, their weights P⁻¹ · W (FlatQuant, arXiv
//! 2410.09426). All folding is done in f64.

mod fold;
mod hadamard;
mod insert;
mod inverse;
mod kronecker;
mod matrix;
mod plan;
mod random;
mod set;
mod stream;
mod symmetric;

#[cfg(test)]
mod tests;

pub use hadamard::{hadamard, spreading};
pub use insert::{insert_group, insert_transforms};
pub use inverse::{SingularMatrix, inverse};
pub use kronecker::{kronecker_sizes, multiply_heads, multiply_rows};
pub use matrix::Matrix;
pub use plan::TransformError;
pub use random::Random;
pub use set::{SiteMatrix, SiteTransform, TransformSet};
pub use stream::{StreamRotation, rotate_stream};
pub use symmetric::{eigen, power, powers};
