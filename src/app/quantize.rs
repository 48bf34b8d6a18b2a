//! Quantising a model into a new folder.
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use planish_ir::Model;
use planish_onnx::{ExternalData, ValueInfo, WriteOptions};
use planish_passes::canonicalize::canonicalize;
use planish_passes::emit::{EMITTED_OPSET, lower_for_opset};
use planish_passes::quantize::{self, BitWidths, CalibrationStats, QuantizeOptions};
use planish_passes::sites::Layout;
use planish_passes::{PassError, PassManager};
use planish_runtime::decoder::{Roles, collect_stats};
use planish_runtime::text::{TextTokenizer, TokenizerConfig, text_folder};
use serde::Serialize;

use super::error::{AppError, check_readable};
use super::finite::check_weights;
use super::model::{OpenOptions, engine, read};
use super::output_folder::OutputFolder;

/// Tokens of a calibration window.
const CALIBRATION_WINDOW: usize = 512;
/// Windows of calibration text that count.
const CALIBRATION_WINDOWS: usize = 32;
/// How much of the activations' range SmoothQuant moves into the weights.
const SMOOTHQUANT_ALPHA: f64 = 0.5;
/// Initializers from this size on go to the external data file.
const EXTERNAL_BYTES: usize = 1024;

/// How outliers are flattened before rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Method {
    /// No transform: round to nearest.
    Rtn,
    /// Per-channel scales between activations and weights (SmoothQuant).
    Smoothquant,
    /// Hadamard rotations (QuaRot).
    #[default]
    Hadamard,
    /// Orthogonal transforms of each site.
    Orthogonal,
}

impl Method {
    /// Whether the method looks at the model's activations on a calibration text.
    fn calibrates(self) -> bool {
        match self {
            Self::Smoothquant => true,
            Self::Rtn | Self::Hadamard | Self::Orthogonal => false,
        }
    }

    /// The method as the command line names it.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How the quantised graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Fused nodes, each with a model-local function in standard ops.
    #[default]
    Fused,
}

/// A request to quantise a model.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizeRequest {
    /// An `.onnx` file, or a folder with `model.onnx`.
    pub model: PathBuf,
    /// The folder to write.
    pub output: PathBuf,
    /// How outliers are flattened.
    pub method: Method,
    /// Widths of weights, activations and KV cache.
    pub bits: BitWidths,
    /// Weights that share a scale along the input channels; nothing means a whole output channel.
    pub group_size: Option<usize>,
    /// Text to calibrate with; a method that needs none leaves it alone and says so.
    pub calibration: Option<PathBuf>,
    /// How the result is written.
    pub format: Format,
    /// Seed of everything random.
    pub seed: u64,
    /// Device and threads; the batch is not used.
    pub open: OpenOptions,
    /// Whether weight clipping is searched for the least error.
    pub clip_search: bool,
    /// Width of the weights of the last linear layer: 4, 8 or 16.
    pub lm_head_bits: u8,
    /// Folder for the graph after every pass.
    pub dump_ir: Option<PathBuf>,
}

/// How far the work has come: `done` of `total` steps of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage<'a> {
    /// Name of the stage, for instance "calibrate".
    pub name: &'a str,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// What quantisation did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeReport {
    /// The folder that was written.
    pub output: PathBuf,
    /// Linear layers that were quantised.
    pub layers: usize,
    /// Linear layers that were left as they are.
    pub layers_left: usize,
    /// Bytes of weights before.
    pub weight_bytes_before: u64,
    /// Bytes of weights after.
    pub weight_bytes_after: u64,
    /// Time taken.
    pub seconds: f64,
    /// What the user should know: layers left alone and why, fall-backs.
    pub notes: Vec<String>,
}

/// Quantises a model, writes it into a folder, and copies tokenizer and configs along.
///
/// # Errors
/// [`AppError`] when a path cannot be read or written, or when the model or the request is not
/// supported.
pub fn quantize(
    request: &QuantizeRequest,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<QuantizeReport, AppError> {
    let start = Instant::now();
    check_request(request)?;
    let folder = OutputFolder::create(&request.output)?;
    progress(Stage { name: "import", done: 0, total: 1 });
    let (mut model, file) = read(&request.model)?;
    refuse_quantized(&model, &file)?;
    check_weights(&model, &file)?;
    let ids = calibration_ids(request, &file)?;
    let mut manager = PassManager::new().with_dump_dir(request.dump_ir.clone());
    let cannot =
        |error: PassError| AppError::failed(format!("cannot compile {}", file.display()), error);
    canonicalize(&mut model, &mut manager).map_err(cannot)?;
    let stats = calibrate(request, &model, &file, ids, progress)?;
    let options = options(request);
    let mut on_progress = |step: planish_passes::quantize::Progress| {
        progress(Stage { name: "quantise", done: step.done as u64, total: step.total as u64 });
    };
    let report = quantize::quantize(&mut model, &options, stats.as_ref(), &mut on_progress)
        .map_err(|error| AppError::failed(format!("cannot quantise {}", file.display()), error))?;
    manager.dump(&model, "quantize").map_err(cannot)?;
    progress(Stage { name: "write", done: 0, total: 1 });
    emit(&mut model, &folder)?;
    copy_companions(&file, &folder)?;
    let report = QuantizeReport {
        output: request.output.clone(),
        layers: report.n_linears,
        layers_left: report.n_left_alone,
        weight_bytes_before: report.weight_bytes_before as u64,
        weight_bytes_after: report.weight_bytes_after as u64,
        seconds: start.elapsed().as_secs_f64(),
        notes: report.notes.into_iter().chain(unused_calibration(request)).collect(),
    };
    folder.write("planish.json", provenance(request, &file, &report)?.as_bytes())?;
    folder.finish()?;
    Ok(report)
}

/// A model that was quantised before would lose twice.
fn refuse_quantized(model: &Model, file: &Path) -> Result<(), AppError> {
    if model.opset(planish_kernels::DOMAIN).is_none() {
        return Ok(());
    }
    let path = file.display();
    Err(AppError::Input(format!("{path} is quantised already; start from the original model")))
}

fn options(request: &QuantizeRequest) -> QuantizeOptions {
    QuantizeOptions {
        bits: request.bits,
        method: match request.method {
            Method::Rtn => quantize::Method::Rtn,
            Method::Smoothquant => quantize::Method::SmoothQuant { alpha: SMOOTHQUANT_ALPHA },
            Method::Hadamard => quantize::Method::Hadamard,
            Method::Orthogonal => quantize::Method::Orthogonal,
        },
        group_size: request.group_size,
        clip_search: request.clip_search,
        lm_head_bits: request.lm_head_bits,
        seed: request.seed,
    }
}

/// What can be said before the model is read.
fn check_request(request: &QuantizeRequest) -> Result<(), AppError> {
    check_readable(&request.model)?;
    request.calibration.as_deref().map_or(Ok(()), check_readable)?;
    engine(&request.open)?;
    if request.method == Method::Smoothquant && request.calibration.is_none() {
        let message = "the method smoothquant needs a text: give --calibration FILE.txt";
        return Err(AppError::Input(message.into()));
    }
    Ok(())
}

/// What to say of a calibration text that the method does not look at.
fn unused_calibration(request: &QuantizeRequest) -> Option<String> {
    let text = request.calibration.as_deref().filter(|_| !request.method.calibrates())?;
    let method = request.method.name();
    Some(format!("the method {method} needs no calibration: {} was not used", text.display()))
}

/// The calibration text as tokens, if the method wants to know the model's activations.
fn calibration_ids(
    request: &QuantizeRequest,
    file: &Path,
) -> Result<Option<Calibration>, AppError> {
    let Some(text) = request.calibration.as_deref().filter(|_| request.method.calibrates()) else {
        return Ok(None);
    };
    let failed = |error| AppError::failed("cannot load the tokenizer", error);
    let tokenizer =
        text_folder(file).and_then(|folder| TextTokenizer::load(&folder)).map_err(failed)?;
    let contents = std::fs::read_to_string(text)
        .map_err(|error| AppError::failed(format!("cannot read {}", text.display()), error))?;
    let ids = tokenizer
        .encode(&contents, false)
        .map_err(|error| AppError::failed(format!("cannot tokenise {}", text.display()), error))?;
    if ids.len() < CALIBRATION_WINDOW {
        let (path, n) = (text.display(), ids.len());
        return Err(AppError::Input(format!(
            "{path} has {n} tokens, but calibration needs at least {CALIBRATION_WINDOW}"
        )));
    }
    Ok(Some(Calibration { tokenizer, ids }))
}

/// A calibration text.
struct Calibration {
    tokenizer: TextTokenizer,
    ids: Vec<u32>,
}

/// Runs the calibration text, if there is one, through the model.
fn calibrate(
    request: &QuantizeRequest,
    model: &Model,
    file: &Path,
    calibration: Option<Calibration>,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Option<CalibrationStats>, AppError> {
    let Some(Calibration { tokenizer, ids }) = calibration else { return Ok(None) };
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        AppError::failed(format!("cannot calibrate {}", file.display()), error)
    };
    let roles = Roles::find(model).map_err(|error| failed(error.into()))?;
    tokenizer.check_vocab(roles.vocab).map_err(|error| failed(error.into()))?;
    let windows: Vec<&[u32]> =
        ids.chunks_exact(CALIBRATION_WINDOW).take(CALIBRATION_WINDOWS).collect();
    let layout = Layout::new(model).map_err(|error| failed(error.into()))?;
    let mut on_window = |done: usize| {
        progress(Stage { name: "calibrate", done: done as u64, total: windows.len() as u64 });
    };
    collect_stats(model, &layout, &engine(&request.open)?, &windows, &mut on_window)
        .map(Some)
        .map_err(|error| failed(error.into()))
}

/// Writes the model for other runtimes, reads it back and checks it.
fn emit(model: &mut Model, folder: &OutputFolder) -> Result<(), AppError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        AppError::failed("cannot write the quantised model", error)
    };
    model.producer_name = "planish".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    lower_for_opset(model, EMITTED_OPSET).map_err(|error| failed(error.into()))?;
    let path = folder.path().join("model.onnx");
    let external_data =
        ExternalData::Beside { file_name: "model.onnx.data".into(), min_bytes: EXTERNAL_BYTES };
    let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
    planish_onnx::write_model(model, &path, &options).map_err(|error| failed(error.into()))?;
    let written = planish_onnx::read_model(&path).map_err(|error| failed(error.into()))?;
    planish_kernels::infer::infer(&written).map_err(|error| failed(error.into()))?;
    Ok(())
}

/// Copies the files that travel with the model, which may lie one folder up. Not among them is
/// `genai_config.json`, as it describes the graph of before: what it alone says about the end of
/// a text goes into a `generation_config.json`.
fn copy_companions(file: &Path, folder: &OutputFolder) -> Result<(), AppError> {
    let own = file.parent().unwrap_or(Path::new(""));
    let of_text = text_folder(file).unwrap_or_else(|_| own.to_owned());
    folder.copy_companions(&[own, &of_text])?;
    let end_ids =
        |path: &Path| TokenizerConfig::load(path).map(|config| config.eos_ids).unwrap_or_default();
    let before = end_ids(&of_text);
    let has_own = folder.path().join("generation_config.json").exists();
    if has_own || before.is_empty() || end_ids(folder.path()) == before {
        return Ok(());
    }
    let config = serde_json::json!({ "eos_token_id": before });
    folder.write("generation_config.json", config.to_string().as_bytes())
}

/// `planish.json`: how the folder was made.
fn provenance(
    request: &QuantizeRequest,
    file: &Path,
    report: &QuantizeReport,
) -> Result<String, AppError> {
    let used = request.calibration.as_ref().filter(|_| request.method.calibrates());
    let calibration = used.map(|path| path.display().to_string());
    let record = serde_json::json!({
        "planish": env!("CARGO_PKG_VERSION"),
        "source": file.display().to_string(),
        "method": request.method.name(),
        "bits": request.bits.to_string(),
        "group_size": request.group_size,
        "clip_search": request.clip_search,
        "lm_head_bits": request.lm_head_bits,
        "seed": request.seed,
        "calibration": calibration,
        "format": "fused",
        "layers_quantised": report.layers,
        "layers_left_alone": report.layers_left,
        "weight_bytes_before": report.weight_bytes_before,
        "weight_bytes_after": report.weight_bytes_after,
        "notes": report.notes,
    });
    serde_json::to_string_pretty(&record)
        .map_err(|error| AppError::Internal(format!("planish.json can't be made: {error}")))
}
