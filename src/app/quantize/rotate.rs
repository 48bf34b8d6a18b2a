//! Rotating the residual stream, where all transforms are to merge.

use planish_ir::Model;
use planish_passes::quantize::stream_rotation;
use planish_passes::sites::{Head, Layout};
use planish_passes::transform::rotate_stream;

use super::request::QuantizeRequest;
use crate::app::error::AppError;

/// What became of the stream.
pub(super) struct Rotated {
    /// Bits of an embedding that is not tied: those of the head that it shared its table with, 16
    /// if it had its own all along.
    pub embedding_bits: u8,
    /// What the user should know.
    pub note: Option<String>,
}

/// Rotates the residual stream of the canonical model if the request is for that and the graph
/// lets it.
///
/// # Errors
/// If the graph contradicts itself, or a weight can't be read.
pub(super) fn rotate(request: &QuantizeRequest, model: &mut Model) -> Result<Rotated, AppError> {
    let as_it_was = |note| Rotated { embedding_bits: 16, note };
    if !request.no_online {
        return Ok(as_it_was(None));
    }
    let layout = Layout::new(model)
        .map_err(|error| AppError::failed("cannot find the model's layers", error))?;
    let stream = match layout.residual_stream(&model.graph) {
        Ok(stream) => stream,
        Err(reason) => {
            return Ok(as_it_was(Some(format!("the residual stream is not rotated: {reason}"))));
        }
    };
    let rotation = stream_rotation(request.options().method, stream.channels, request.seed);
    rotate_stream(model, &layout, &stream, &rotation)
        .map_err(|error| AppError::failed("cannot rotate the residual stream", error))?;
    if !layout.head.as_ref().is_some_and(Head::is_tied) {
        return Ok(as_it_was(None));
    }
    let note = "the residual stream is rotated: embedding and head have a table each";
    let embedding_bits = if request.lm_head_bits == 16 { 16 } else { 8 };
    Ok(Rotated { embedding_bits, note: Some(note.to_owned()) })
}
