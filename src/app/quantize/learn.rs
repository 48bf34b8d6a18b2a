//! Learning methods: calibration, then quantisation block by block.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use planish_ir::Model;
use planish_passes::calibrate::{Online, StudentOptions};
use planish_passes::quantize::{self, Calibration, ModelQuantizer};
use planish_passes::sites::Layout;
use planish_runtime::calibrate::{
    self, CalibrationError, CalibrationProgress, Outcome, Recipe, Store, fingerprint,
};

use super::request::{Effort, Format, Method, QuantizeRequest, Rounding, Stage};
use super::text::{Text, tokens};
use crate::app::device::{Learners, learners};
use crate::app::error::AppError;

/// The stability factor of AffineQuant's gradual mask with quantised activations, and without.
const STABILITY: (f32, f32) = (0.1, 0.01);

/// What came of a learning method.
pub(super) struct Learned {
    /// What the quantising passes report.
    pub(super) report: quantize::QuantizeReport,
    /// How learning went.
    pub(super) outcome: Outcome,
    /// What was done.
    pub(super) recipe: Recipe,
    /// What was kept for a run that is stopped; to be removed when the model is written.
    pub(super) store: Store,
}

/// The recipe of a request.
///
/// # Errors
/// [`AppError::Input`] when a change of it is not understood.
pub(super) fn recipe(request: &QuantizeRequest) -> Result<Recipe, AppError> {
    let affine = request.method == Method::Affinequant;
    let mut recipe = match request.effort {
        Effort::Fast => Recipe::fast(),
        Effort::Balanced => Recipe::balanced(),
        Effort::Full => Recipe::full(),
    };
    if affine {
        recipe = recipe.for_affine();
    } else if request.effort != Effort::Fast && !request.graph_bits().quantizes_activations() {
        recipe = recipe.with_slower_weights();
    }
    for (name, value) in &request.recipe {
        recipe.set(name, value).map_err(AppError::Input)?;
    }
    recipe.check().map_err(AppError::Input)?;
    Ok(recipe)
}

/// Learns, and quantises `model` in place.
///
/// # Errors
/// [`AppError`] when the text is too short, the model can't be learned or quantised, or what an
/// earlier run left does not fit.
pub(super) fn learn(
    request: &QuantizeRequest,
    model: &mut Model,
    text: Option<Text>,
    progress: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<Learned, AppError> {
    let failed = |error: CalibrationError| AppError::failed("cannot calibrate", error);
    let recipe = recipe(request)?;
    let sizes = (recipe.blocks.windows, recipe.blocks.length);
    calibrate::check_length(model, recipe.blocks.length).map_err(failed)?;
    let Learners { engine, workers } = learners(&request.open, request.workers)?;
    let ids = tokens(request, text, model, sizes, progress)?;
    let source = model.clone();
    let layout = Layout::new(&source).map_err(|error| failed(error.into()))?;
    let options = student_options(request, &recipe);
    let key = format!(
        "{}\n{:?}\n{options:?}\n{recipe:?}\nseed {}\n{:016x}\n{}\n",
        env!("CARGO_PKG_VERSION"),
        request.method,
        request.seed,
        fingerprint(&source, &ids),
        engine.name(),
    );
    let store = Store::open(&store_folder(&request.output), &key).map_err(failed)?;
    let calibration = calibrate::Calibration {
        engine: &*engine,
        model: &source,
        layout: &layout,
        options: &options,
        recipe: &recipe,
        ids: &ids,
        seed: request.seed,
        hessians: request.rounding == Rounding::Gptq,
        workers: &workers,
        store: Some(&store),
    };
    let options = request.options();
    let cannot = |error| AppError::failed("cannot quantise the model", error);
    let mut quantizer = ModelQuantizer::new(model, &layout, &options).map_err(cannot)?;
    let outcome = calibration
        .run(&mut |step| progress(stage(step)), &mut |index, learned, hessians| {
            let mut found = Calibration { hessians, ..Calibration::default() };
            learned.add_to(&mut found);
            learned.replace_weights(&mut quantizer)?;
            quantizer.quantize_group(index, &found)
        })
        .map_err(failed)?;
    // What stands outside of the blocks was not learned.
    for index in layout.blocks.len()..quantizer.n_groups() {
        quantizer.quantize_group(index, &Calibration::default()).map_err(cannot)?;
    }
    let report = quantizer.finish().map_err(cannot)?;
    Ok(Learned { report, outcome, recipe, store })
}

fn student_options(request: &QuantizeRequest, recipe: &Recipe) -> StudentOptions {
    let affine = request.method == Method::Affinequant;
    let bits = request.graph_bits();
    let stability = if bits.quantizes_activations() { STABILITY.0 } else { STABILITY.1 };
    StudentOptions {
        bits,
        group_size: request.group_size,
        online: match (affine, request.format) {
            (true, _) => Online::Nothing,
            // ONNX Runtime has no fused transforms: each product is a node or three.
            (false, Format::MatMulNBits) => Online::Blocks,
            (false, Format::Fused | Format::Qdq) => Online::Kronecker,
        },
        scales: true,
        shifts: affine,
        weights: recipe.learns_weights(),
        gradual: affine.then_some(stability),
    }
}

/// The hidden folder beside the output that finished blocks are kept in.
fn store_folder(output: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".calibration");
    output.with_file_name(name)
}

fn stage(step: CalibrationProgress) -> Stage<'static> {
    let together = step.block == step.n_blocks;
    let (name, before, total) = match together {
        true => ("learn together", 0, step.n_steps),
        false => ("learn blocks", step.block * step.n_steps, step.n_blocks * step.n_steps),
    };
    Stage {
        name,
        done: (before + step.step) as u64,
        total: total as u64,
        loss: step.loss.is_finite().then_some(step.loss),
    }
}
