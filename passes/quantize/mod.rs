//! Quantisation: widths, methods, and the passes that rewrite linear layers, KV caches and the
//! head for fewer bits.

pub mod bits;

mod cache;
mod error;
mod head;
mod method;
mod model;
mod observe;
mod options;
mod site;
mod smooth;
mod weight;

#[cfg(test)]
mod tests;

pub use bits::BitWidths;
pub use error::QuantizeError;
pub use head::quantize_head;
pub use method::transforms_of;
pub use model::{quantize, quantize_with};
pub use observe::{CalibrationStats, Observed, observe};
pub use options::{Method, Progress, QuantizeOptions, QuantizeReport};
pub use weight::{QuantizedWeight, WeightFormat, quantize_columns, quantize_rows};
