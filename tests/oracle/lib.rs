//! tract, an ONNX engine that shares no code with this project, as an oracle for the tests.
//!
//! tract plans for fixed sizes, so an export's symbolic batch, sequence and past lengths are
//! replaced by numbers before it is analysed.

mod error;
mod sizes;

use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::*;

pub use error::{OracleError, Stage};
use sizes::Sizes;

/// The logits `[1, sequence, vocabulary]` that tract computes for the tokens `ids` with an empty
/// cache: their shape and their elements. The logits are the model's first output.
///
/// # Errors
/// If tract can't read, analyse or run the model, with tract's own words; or if the model has an
/// input that is no input of a language model.
pub fn tract_logits(model_path: &Path, ids: &[i64]) -> Result<(Vec<usize>, Vec<f32>), OracleError> {
    let failed = |stage| {
        move |cause: TractError| OracleError::Tract {
            path: model_path.to_owned(),
            stage,
            reason: format!("{cause:#}"),
        }
    };
    let sizes = Sizes { past: 0, sequence: ids.len() };
    let mut model = onnx().model_for_path(model_path).map_err(failed(Stage::Read))?;
    sizes.fix(&mut model).map_err(failed(Stage::Analyse))?;
    let mut inputs = TVec::new();
    for index in 0..model.inputs.len() {
        inputs.push(sizes.input(&model, index, ids)?.into());
    }
    let plan = plan(model).map_err(failed(Stage::Analyse))?;
    let outputs = plan.run(inputs).map_err(failed(Stage::Run))?;
    read_logits(&outputs).map_err(failed(Stage::Run))
}

/// The model with only its logits as output, ready to run.
fn plan(mut model: InferenceModel) -> TractResult<Arc<TypedRunnableModel>> {
    let logits: Vec<OutletId> = model.output_outlets()?.iter().take(1).copied().collect();
    model.select_output_outlets(&logits)?;
    model.into_optimized()?.into_runnable()
}

fn read_logits(outputs: &[TValue]) -> TractResult<(Vec<usize>, Vec<f32>)> {
    let logits = outputs.first().ok_or_else(|| TractError::msg("there is no output"))?;
    let values = logits.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
    Ok((logits.shape().to_vec(), values))
}
