//! Collecting what activations range over while a text runs through a model.

use planish_ir::Model;
use planish_passes::PassManager;
use planish_passes::lower::{LowerOptions, lower};
use planish_passes::quantize::{CalibrationStats, observe};
use planish_passes::sites::Layout;

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
    let roles = Roles::find(model)?;
    let mut observed = observe(model, layout)?;
    let outputs = observed.outputs.iter().map(|(_, name)| name.clone()).collect();
    let options = LowerOptions { cache: true, no_padding: true };
    lower(&mut observed.model, options, &mut PassManager::new())?;
    let compile_options = CompileOptions { outputs: Some(outputs), ..CompileOptions::default() };
    let executable = engine.compile(&observed.model, &compile_options)?;
    let feeds = Feeds::new(&model.graph, &roles, executable.inputs())?;
    let mut session = executable.session();
    let mut stats = CalibrationStats::default();
    for (done, window) in windows.iter().enumerate() {
        progress(done);
        session.reset(&[]);
        let maxima = session.run(&feeds.make(&[*window]))?;
        for ((site, name), tensor) in observed.outputs.iter().zip(maxima) {
            stats.update(*site, &tensor).map_err(|error| DecoderError::Array {
                name: name.clone(),
                problem: error.to_string(),
            })?;
        }
    }
    progress(windows.len());
    Ok(stats)
}
