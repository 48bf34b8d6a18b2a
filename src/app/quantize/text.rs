//! The calibration text.
use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_runtime::calibrate::write_own_text;
use planish_runtime::decoder::Roles;
use planish_runtime::evaluate::join_rows;
use planish_runtime::text::{TextTokenizer, text_folder};

use super::request::{CalibrationText, QuantizeRequest, Stage};
use crate::app::device::engine;
use crate::app::error::AppError;

/// Reads the text file of a request as tokens, before any work is done.
///
/// # Errors
/// [`AppError`] when the tokenizer or the text can't be read.
pub(in crate::app) fn read_text(path: &Path, model_file: &Path) -> Result<Text, AppError> {
    let failed = |error| AppError::failed("cannot load the tokenizer", error);
    let tokenizer =
        text_folder(model_file).and_then(|folder| TextTokenizer::load(&folder)).map_err(failed)?;
    let contents = std::fs::read_to_string(path)
        .map_err(|error| AppError::failed(format!("cannot read {}", path.display()), error))?;
    let ids = tokenizer
        .encode(&join_rows(&contents), false)
        .map_err(|error| AppError::failed(format!("cannot tokenise {}", path.display()), error))?;
    Ok(Text { tokenizer, ids, path: path.to_owned() })
}

/// A calibration text that was read from a file.
pub(in crate::app) struct Text {
    tokenizer: TextTokenizer,
    pub(in crate::app) ids: Vec<u32>,
    /// The file.
    pub(super) path: PathBuf,
}

impl Text {
    /// Checks that the tokenizer is the model's.
    ///
    /// # Errors
    /// [`AppError`] when the model is no decoder or has another vocabulary.
    pub(in crate::app) fn check(&self, model: &Model) -> Result<(), AppError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            AppError::failed("cannot calibrate", error)
        };
        let roles = Roles::find(model).map_err(|error| failed(error.into()))?;
        self.tokenizer.check_vocab(roles.vocab).map_err(|error| failed(error.into()))
    }
}

/// The tokens to calibrate with: those of the file, or `n_windows` windows of `length` tokens
/// that the model writes itself.
///
/// # Errors
/// [`AppError`] when the model can't be run.
pub(super) fn tokens(
    request: &QuantizeRequest,
    text: Option<Text>,
    model: &Model,
    (n_windows, length): (usize, usize),
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Vec<u32>, AppError> {
    if let Some(text) = text {
        text.check(model)?;
        return Ok(text.ids);
    }
    let engine = engine(&request.open)?;
    let mut report = |done, total| progress(Stage::new("write text", done, total));
    write_own_text(model, &*engine, n_windows, length, request.seed, &mut report)
        .map_err(|error| AppError::failed("cannot write a calibration text", error))
}

/// The file of a request, if its text is one.
pub(super) fn file_of(request: &QuantizeRequest) -> Option<&Path> {
    match &request.calibration {
        Some(CalibrationText::File(path)) => Some(path),
        Some(CalibrationText::OwnWords) | None => None,
    }
}
