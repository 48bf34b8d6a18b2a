//! A page about a quantised model.
mod clips;
mod comparison;
mod envelope;
mod page;
mod plots;
mod quantized;
mod record;
mod sections;

use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_passes::sites::Layout;
use planish_runtime::calibrate::write_own_text;
use planish_runtime::decoder::Roles;
use planish_runtime::engine::cpu::CpuEngine;
use planish_runtime::evaluate::{BenchOptions, Speed, bench};

use super::device::{OpenOptions, cpu_engine};
use super::error::{AppError, check_readable};
use super::model::{open_model, read};
use super::quantize::{Stage, read_text};
use comparison::{Comparison, Pair};
use record::Record;
use sections::Findings;

/// Tokens that run through both models.
const WINDOW: usize = 256;
/// Seed of the text that the model writes itself.
const SEED: u64 = 0;
/// What is timed: enough to compare, and over soon.
const TIMED: BenchOptions = BenchOptions { prefill: 256, decode: 32, repeats: 3 };

/// A request for a page.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportRequest {
    /// The folder that `planish quantize` wrote.
    pub model: PathBuf,
    /// The page to write; a file of that name is replaced.
    pub output: PathBuf,
    /// The original model; nothing means the one that `planish.json` names, if it is still there.
    pub source: Option<PathBuf>,
    /// Text to run through both models; nothing means that the original writes it itself.
    pub text: Option<PathBuf>,
    /// Whether speed is measured.
    pub bench: bool,
    /// Device and threads; the batch is not used.
    pub open: OpenOptions,
}

/// Writes a page about a quantised model: one HTML file that needs nothing else.
///
/// # Errors
/// [`AppError`] when a path can't be read or written, or a model can't be run.
pub fn report(
    request: &ReportRequest,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(), AppError> {
    check_readable(&request.model)?;
    let record = Record::read(&request.model)?;
    let engine = cpu_engine(&request.open)?;
    progress(Stage::new("import", 0, 1));
    let (quantized, file) = read_canonical(&request.model)?;
    let source = source(request, &record);
    let comparison = match &source {
        Ok(path) => {
            let original = read_canonical(path)?.0;
            let window = window(request, &original, &file, &engine, progress)?;
            progress(Stage::new("compare", 0, 1));
            Ok(compare(&original, path, &quantized, &file, &engine, &window)?)
        }
        Err(reason) => Err(reason.clone()),
    };
    let labels = comparison.as_ref().map_or(&[][..], |found| &found.labels);
    let order =
        quantized.graph.topological_order().map_err(|error| not_understood(&file, error))?;
    let clips = clips::clips(&quantized.graph, &order, labels);
    drop(quantized);
    let speeds = measure_speeds(request, source.as_deref().ok(), progress)?;
    let findings = Findings { record, comparison, clips, speeds };
    let title = request.model.file_name().unwrap_or(request.model.as_os_str()).to_string_lossy();
    write_whole(&request.output, &page::page(&title, &findings.sections()?))
}

/// Reads a model and brings it into canonical form.
fn read_canonical(path: &Path) -> Result<(Model, PathBuf), AppError> {
    let (mut model, file) = read(path)?;
    canonicalize(&mut model, &mut PassManager::new())
        .map_err(|error| AppError::failed(format!("cannot compile {}", file.display()), error))?;
    Ok((model, file))
}

/// Compares a canonical model, read from `path`, with its quantised form, read from `file`.
fn compare(
    original: &Model,
    path: &Path,
    quantized: &Model,
    file: &Path,
    engine: &CpuEngine,
    window: &[u32],
) -> Result<Comparison, AppError> {
    let layout = Layout::new(original).map_err(|error| not_understood(path, error))?;
    let pair = Pair { original, layout: &layout, quantized };
    pair.compare(engine, window).map_err(|(of_original, error)| {
        let file = if of_original { path } else { file };
        AppError::failed(format!("cannot run {}", file.display()), error)
    })
}

fn not_understood(file: &Path, error: impl std::error::Error + Send + Sync + 'static) -> AppError {
    AppError::failed(format!("cannot understand {}", file.display()), error)
}

/// Where the original is, or why it is nowhere. One that was asked for must be there.
fn source(request: &ReportRequest, record: &Record) -> Result<PathBuf, String> {
    if let Some(path) = &request.source {
        return Ok(path.clone());
    }
    match Path::new(&record.source) {
        path if path.exists() => Ok(path.to_owned()),
        _ => Err(format!(
            "This needs the original model, and {} is not there any more; --source says where \
             else to look.",
            record.source
        )),
    }
}

/// The tokens to run through both models.
fn window(
    request: &ReportRequest,
    original: &Model,
    file: &Path,
    engine: &CpuEngine,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Vec<u32>, AppError> {
    let failed = |error| AppError::failed("cannot run the original model", error);
    let most = Roles::find(original).map_err(failed)?.max_positions.unwrap_or(WINDOW).min(WINDOW);
    let Some(path) = &request.text else {
        let mut report = |done, total| progress(Stage::new("write text", done, total));
        return write_own_text(original, engine, 1, most, SEED, &mut report).map_err(|error| {
            AppError::failed("cannot write a text with the original model", error)
        });
    };
    let text = read_text(path, file)?;
    text.check(original)?;
    let ids: Vec<u32> = text.ids.into_iter().take(most).collect();
    match ids.is_empty() {
        true => Err(AppError::Input(format!("{} has no text", path.display()))),
        false => Ok(ids),
    }
}

/// The speed of the original, if it is there, and of the quantised model, if they were asked for.
fn measure_speeds(
    request: &ReportRequest,
    source: Option<&Path>,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Vec<(bool, Speed)>, AppError> {
    let models = [(true, source), (false, Some(request.model.as_path()))];
    let asked_for = models.into_iter().filter(|_| request.bench);
    let present = asked_for.filter_map(|(original, path)| Some((original, path?)));
    let options = OpenOptions { batch: 1, ..request.open };
    present
        .map(|(original, path)| {
            progress(Stage::new("measure speed", usize::from(!original), 2));
            let mut model = open_model(path, &options)?;
            let speed = bench(model.as_mut(), TIMED).map_err(|error| {
                AppError::failed(format!("cannot measure {}", path.display()), error)
            })?;
            Ok((original, speed))
        })
        .collect()
}

/// Writes a file beside its place and renames it, so that it is there whole or not at all.
fn write_whole(path: &Path, text: &str) -> Result<(), AppError> {
    // What a link leads to is replaced, and a device is written to, not replaced.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = match target.exists() && !target.is_file() {
        true => std::fs::write(&target, text),
        false => std::fs::write(&temporary, text).and_then(|()| {
            // Nothing can be done about a file that can't be removed either.
            std::fs::rename(&temporary, &target)
                .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        }),
    };
    written.map_err(|error| AppError::failed(format!("cannot write {}", path.display()), error))
}
