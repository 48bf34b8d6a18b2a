//! Learned calibration: running text through a model's blocks and learning transforms, clipping
//! and weights from it.
//!
//! [`Calibration::run`] is the story: what the blocks read is captured once; then block after
//! block is cut out, given parameters, and learned so that it gives what it gives in full
//! precision (FlatQuant, arXiv 2410.09426); each finished block is kept on disk.

mod batches;
mod block;
mod capture;
mod end_to_end;
mod error;
mod fingerprint;
mod finish;
mod in_order;
mod learner;
mod lessons;
mod losses;
mod own_text;
mod pipeline;
mod recipe;
mod runner;
mod side_by_side;
mod start;
mod states;
mod store;
mod together;

#[cfg(test)]
mod tests;

pub use capture::check_length;
pub use error::CalibrationError;
pub use fingerprint::fingerprint;
pub use own_text::write_own_text;
pub use pipeline::{Calibration, CalibrationProgress, Outcome};
pub use recipe::{BlockInput, BlockRecipe, EndToEndRecipe, Rates, Recipe};
pub use side_by_side::Worker;
pub use store::{Finished, Store};

use planish_ir::Tensor;

/// The elements of a tensor of floats; `what` names it in a message.
fn floats(tensor: &Tensor, what: &str) -> Result<Vec<f32>, CalibrationError> {
    tensor.to_f32_vec().map_err(|error| CalibrationError::Value {
        value: what.to_owned(),
        problem: error.to_string(),
    })
}
