//! Collecting what activations are like while a text runs through a model.

use planish_ir::{Model, Tensor, TensorError};
use planish_passes::PassManager;
use planish_passes::lower::{LowerOptions, lower};
use planish_passes::quantize::{CalibrationStats, Hessians, Observed, observe, observe_hessians};
use planish_passes::sites::{Layout, SiteId};

use super::{DecoderError, Feeds, Roles};
use crate::engine::{CompileOptions, Engine};

/// Runs windows of token ids, each from an empty cache, through the canonical `model`, and
/// returns the largest absolute value of every channel of every site. `progress` is called with
/// the number of windows done.
///
/// # Errors
/// [`DecoderError`] if the graph is no decoder, or the engine can't run it.
pub fn collect_stats(
    model: &Model,
    layout: &Layout,
    engine: &dyn Engine,
    windows: &[&[u32]],
    progress: &mut dyn FnMut(usize),
) -> Result<CalibrationStats, DecoderError> {
    let mut stats = CalibrationStats::default();
    let observed = observe(model, layout)?;
    let mut take = |site, maxima: &Tensor| stats.update(site, maxima);
    run_windows(model, observed, engine, windows, &mut take, progress)?;
    Ok(stats)
}

/// As [`collect_stats`], the Hessians of the given sites: Σ x · xᵀ of what their layers read, over
/// all positions, f64 `[K, K]` each. The model is canonical, in any state of quantisation (see
/// [`observe_hessians`]); blocks after the last of the sites are not run.
///
/// # Errors
/// As [`collect_stats`], and if a site is not in the model.
pub fn collect_hessians(
    model: &Model,
    layout: &Layout,
    sites: &[SiteId],
    engine: &dyn Engine,
    windows: &[&[u32]],
    progress: &mut dyn FnMut(usize),
) -> Result<Hessians, DecoderError> {
    let mut hessians = Hessians::default();
    let observed = observe_hessians(model, layout, sites)?;
    let mut take = |site, gram: &Tensor| hessians.update(site, gram);
    run_windows(model, observed, engine, windows, &mut take, progress)?;
    Ok(hessians)
}

/// Runs each window through the observed model and hands its added outputs to `take`.
fn run_windows(
    model: &Model,
    mut observed: Observed,
    engine: &dyn Engine,
    windows: &[&[u32]],
    take: &mut dyn FnMut(SiteId, &Tensor) -> Result<(), TensorError>,
    progress: &mut dyn FnMut(usize),
) -> Result<(), DecoderError> {
    let roles = Roles::find(model)?;
    let outputs = observed.outputs.iter().map(|(_, name)| name.clone()).collect();
    let options = LowerOptions { cache: true, no_padding: true };
    lower(&mut observed.model, options, &mut PassManager::new())?;
    let compile_options = CompileOptions { outputs: Some(outputs), ..CompileOptions::default() };
    let executable = engine.compile(&observed.model, &compile_options)?;
    let feeds = Feeds::new(&model.graph, &roles, executable.inputs())?;
    let mut session = executable.session();
    for (done, window) in windows.iter().enumerate() {
        progress(done);
        session.reset(&[]);
        let values = session.run(&feeds.make(&[*window]))?;
        for ((site, name), tensor) in observed.outputs.iter().zip(&values) {
            take(*site, tensor).map_err(|error| DecoderError::Array {
                name: name.clone(),
                problem: error.to_string(),
            })?;
        }
    }
    progress(windows.len());
    Ok(())
}
