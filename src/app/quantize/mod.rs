//! Quantising a model into a new folder.
mod emit;
mod genai;
mod learn;
mod provenance;
mod request;
mod rotate;
mod text;

use std::path::Path;
use std::time::Instant;

use planish_ir::Model;
use planish_passes::canonicalize::canonicalize;
use planish_passes::quantize::quantized_node;
use planish_passes::quantize::{self, CalibrationStats, QuantizeOptions};
use planish_passes::sites::Layout;
use planish_passes::{PassError, PassManager};
use planish_runtime::decoder::collect_stats;

use super::device::engine;
use super::error::{AppError, check_readable};
use super::finite::check_weights;
use super::model::read;
use super::output_folder::OutputFolder;
use emit::{copy_companions, emit};
use learn::{Learned, learn};
use provenance::{LearningRecord, provenance};
use rotate::{Rotated, rotate};
use text::{Text, file_of};

pub(super) use text::read_text;

pub use request::{
    CalibrationText, Effort, Format, Method, QuantizeReport, QuantizeRequest, Rounding, Stage,
};

/// Tokens of a window that ranges are measured on.
const RANGE_WINDOW: usize = 512;
/// Windows that ranges are measured on.
const RANGE_WINDOWS: usize = 32;

/// Quantises a model, writes it into a folder, and copies tokenizer and configs along.
///
/// # Errors
/// [`AppError`] when a path cannot be read or written, or when the model or the request is not
/// supported.
pub fn quantize(
    request: &QuantizeRequest,
    progress: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<QuantizeReport, AppError> {
    let start = Instant::now();
    check_request(request)?;
    let folder = OutputFolder::create(&request.output)?;
    progress(Stage::new("import", 0, 1));
    let (mut model, file) = read(&request.model)?;
    refuse_quantized(&model, &file)?;
    check_weights(&model, &file)?;
    let text = file_of(request).filter(|_| request.method.reads_text());
    let text = text.map(|path| read_text(path, &file)).transpose()?;
    let mut manager = PassManager::new().with_dump_dir(request.dump_ir.clone());
    let cannot =
        |error: PassError| AppError::failed(format!("cannot compile {}", file.display()), error);
    canonicalize(&mut model, &mut manager).map_err(cannot)?;
    let rotated = rotate(request, &mut model)?;
    let (report, learned) = rewrite(request, &rotated, &mut model, &file, text, progress)?;
    manager.dump(&model, "quantize").map_err(cannot)?;
    progress(Stage::new("write", 0, 1));
    copy_companions(&file, &folder)?;
    let emitted = emit(request, &mut model, &file, &folder)?;
    let report = QuantizeReport {
        output: request.output.clone(),
        layers: report.n_linears,
        layers_left: report.n_left_alone,
        weight_bytes_before: report.weight_bytes_before as u64,
        weight_bytes_after: report.weight_bytes_after as u64,
        seconds: start.elapsed().as_secs_f64(),
        notes: report
            .notes
            .into_iter()
            .chain(rotated.note)
            .chain(unused_calibration(request))
            .chain(emitted)
            .collect(),
    };
    let record =
        learned.as_ref().map(|l| LearningRecord { recipe: &l.recipe, outcome: &l.outcome });
    folder.write("planish.json", provenance(request, &file, &report, record)?.as_bytes())?;
    folder.finish()?;
    if let Some(learned) = learned {
        learned.store.remove();
    }
    Ok(report)
}

/// Calibrates and quantises the canonical model in place.
fn rewrite(
    request: &QuantizeRequest,
    rotated: &Rotated,
    model: &mut Model,
    file: &Path,
    text: Option<Text>,
    progress: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<(quantize::QuantizeReport, Option<Learned>), AppError> {
    if request.method.learns() {
        let learned = learn(request, model, text, progress)?;
        return Ok((learned.report.clone(), Some(learned)));
    }
    let options = QuantizeOptions { embedding_bits: rotated.embedding_bits, ..request.options() };
    let stats = measure_ranges(request, model, file, text, progress)?;
    let mut on_progress = |step: quantize::Progress| {
        progress(Stage::new("quantise", step.done, step.total));
    };
    let report = quantize::quantize(model, &options, stats.as_ref(), &mut on_progress)
        .map_err(|error| AppError::failed(format!("cannot quantise {}", file.display()), error))?;
    Ok((report, None))
}

/// A model that was quantised before, by planish or anything else, would lose twice.
fn refuse_quantized(model: &Model, file: &Path) -> Result<(), AppError> {
    let Some(node) = quantized_node(&model.graph) else { return Ok(()) };
    let (path, node) = (file.display(), node.describe());
    Err(AppError::Input(format!(
        "{path} is quantised already, as {node} shows; start from the original model"
    )))
}

/// What can be said before the model is read.
fn check_request(request: &QuantizeRequest) -> Result<(), AppError> {
    check_readable(&request.model)?;
    request.format.check(request.bits, request.group_size).map_err(AppError::Input)?;
    file_of(request).map_or(Ok(()), check_readable)?;
    engine(&request.open)?;
    check_transforms(request)?;
    let is_smoothquant = request.method == Method::Smoothquant;
    if is_smoothquant && file_of(request).is_none() {
        let message = "the method smoothquant needs a text: give --calibration FILE.txt";
        return Err(AppError::Input(message.into()));
    }
    if request.method.learns() {
        learn::recipe(request)?;
        return Ok(());
    }
    let learned_only = [
        (request.rounding != Rounding::Nearest, "--rounding gptq"),
        (!request.recipe.is_empty(), "--recipe"),
    ];
    match learned_only.iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(AppError::Input(format!(
            "{option} needs a method that learns from text: flatquant or affinequant"
        ))),
        None => Ok(()),
    }
}

/// Refuses options about transforms that the method does not have.
fn check_transforms(request: &QuantizeRequest) -> Result<(), AppError> {
    if !request.no_online || matches!(request.method, Method::Hadamard | Method::Orthogonal) {
        return Ok(());
    }
    let message = "--no-online is for the methods hadamard and orthogonal; affinequant is the one that \
                   learns what merges";
    Err(AppError::Input(message.to_owned()))
}

/// What to say of a calibration text that the method does not look at.
fn unused_calibration(request: &QuantizeRequest) -> Option<String> {
    let text = file_of(request).filter(|_| !request.method.reads_text())?;
    let method = request.method.name();
    Some(format!("the method {method} needs no calibration: {} was not used", text.display()))
}

/// Runs the text, if the method measures ranges, through the model.
fn measure_ranges(
    request: &QuantizeRequest,
    model: &Model,
    file: &Path,
    text: Option<Text>,
    progress: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<Option<CalibrationStats>, AppError> {
    let Some(text) = text else { return Ok(None) };
    text.check(model)?;
    let n = text.ids.len();
    if n < RANGE_WINDOW {
        return Err(AppError::Input(format!(
            "{} has {n} tokens, but at least {RANGE_WINDOW} are needed",
            text.path.display()
        )));
    }
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        AppError::failed(format!("cannot calibrate {}", file.display()), error)
    };
    let windows: Vec<&[u32]> = text.ids.chunks_exact(RANGE_WINDOW).take(RANGE_WINDOWS).collect();
    let layout = Layout::new(model).map_err(|error| failed(error.into()))?;
    let mut on_window = |done: usize| progress(Stage::new("calibrate", done, windows.len()));
    collect_stats(model, &layout, &*engine(&request.open)?, &windows, &mut on_window)
        .map(Some)
        .map_err(|error| failed(error.into()))
}
