//! Quantisation: widths, methods, and the passes that rewrite linear layers, KV caches and the
//! head for fewer bits.

pub mod bits;

mod already;
mod cache;
mod calibration;
mod error;
mod gptq;
mod head;
mod hessian;
mod linear;
mod method;
mod model;
mod notes;
mod observe;
mod options;
mod replace;
mod rounding;
mod site;
mod smooth;
mod weight;

#[cfg(test)]
mod tests;

pub use already::quantized_node;
pub use bits::BitWidths;
pub use calibration::{Calibration, Clip, Clips, WeightClip};
pub use error::QuantizeError;
pub use gptq::{Gptq, HessianError};
pub use head::{quantize_embedding, quantize_head};
pub use hessian::{Hessian, Hessians};
pub use method::{stream_rotation, transforms_of};
pub use model::{ModelQuantizer, quantize, quantize_with};
pub use observe::{CalibrationStats, Observed, add_gram, observe, observe_hessians};
pub use options::{Method, Progress, QuantizeOptions, QuantizeReport, Rounding};
pub use replace::{replace_bias, replace_parameter, replace_weight};
pub use weight::{
    Clipping, QuantizedWeight, WeightError, WeightFormat, column_scales, quantize_columns,
    quantize_rows, round_columns,
};
