//! Collecting what activations range over while a text runs through a model.

use planish_ir::Model;
use planish_passes::quantize::{CalibrationStats, observe};
use planish_passes::sites::Layout;

use super::feed::{Extent, Feed, FeedNames};
use super::{DecoderError, Roles};
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
    let names = FeedNames::new(&model.graph, &roles);
    let observed = observe(model, layout)?;
    let outputs = observed.outputs.iter().map(|(_, name)| name.clone()).collect();
    let name = |value| model.graph.value(value).name.clone();
    let empty: Vec<_> = roles
        .caches
        .iter()
        .filter_map(|pair| Some((name(pair.past), pair.empty(1)?)))
        .collect();
    let options = CompileOptions { outputs: Some(outputs), ..CompileOptions::default() };
    let executable = engine.compile(&observed.model, &options)?;
    let mut session = executable.session();
    let mut stats = CalibrationStats::default();
    for (done, window) in windows.iter().enumerate() {
        progress(done);
        let extent = Extent { batch: 1, past: 0, length: window.len(), logits_from: 0 };
        let mut tensors = Vec::new();
        for input in executable.inputs() {
            match empty.iter().find(|(name, _)| *name == input.name) {
                Some((_, cache)) => tensors.push(cache.clone()),
                None => tensors.push(Feed::of(input, &names)?.make(window, extent)),
            }
        }
        let maxima = session.run(&tensors)?;
        for ((site, _), tensor) in observed.outputs.iter().zip(maxima) {
            stats.update(*site, &tensor).map_err(|error| DecoderError::Array {
                name: "channel maxima".into(),
                problem: error.to_string(),
            })?;
        }
    }
    progress(windows.len());
    Ok(stats)
}
