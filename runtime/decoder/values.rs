//! Looking at values of a graph while a window of text runs through it.

use std::collections::HashMap;

use planish_ir::{Model, Tensor};
use planish_passes::PassManager;
use planish_passes::lower::{LowerOptions, lower};

use super::{DecoderError, Feeds, Roles};
use crate::engine::{CompileOptions, Engine};

/// Runs a window of token ids from an empty cache through the canonical `model`, and returns the
/// values called `names`, whole: f32 `[1, tokens, channels]` for activations. Names that are not
/// in the graph are left out.
///
/// # Errors
/// [`DecoderError`] if the graph is no decoder, or the engine can't run it.
pub fn collect_values(
    model: &Model,
    engine: &dyn Engine,
    names: &[String],
    window: &[u32],
) -> Result<HashMap<String, Tensor>, DecoderError> {
    let roles = Roles::find(model)?;
    let mut observed = model.clone();
    let mut wanted: Vec<String> = Vec::new();
    for name in names {
        let Some(value) = observed.graph.find_value(name) else { continue };
        if wanted.contains(name) {
            continue;
        }
        wanted.push(name.clone());
        if !observed.graph.is_output(value) {
            observed.graph.value_mut(value).declared = true;
            observed.graph.outputs.push(value);
        }
    }
    let options = LowerOptions { cache: true, no_padding: true };
    lower(&mut observed, options, &mut PassManager::new())?;
    let options = CompileOptions { outputs: Some(wanted.clone()), ..CompileOptions::default() };
    let executable = engine.compile(&observed, &options)?;
    let feeds = Feeds::new(&model.graph, &roles, executable.inputs())?;
    let mut session = executable.session();
    session.reset(&[]);
    let values = session.run(&feeds.make(&[window]))?;
    Ok(wanted.into_iter().zip(values).collect())
}
