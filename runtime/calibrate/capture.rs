//! What the blocks of a model read before anything is learned.

use std::collections::HashMap;

use planish_ir::{Model, Tensor, ValueId};
use planish_passes::PassManager;
use planish_passes::calibrate::BlockModel;
use planish_passes::lower::{LowerOptions, lower};

use super::CalibrationError;
use super::states::States;
use crate::decoder::{Feeds, Roles};
use crate::engine::{CompileOptions, Engine, Executable};

/// What goes into the blocks.
pub struct Captured {
    /// What the first block reads.
    pub states: States,
    /// What blocks read from outside of the residual stream, for a batch, by the name of the
    /// value in the whole model.
    pub outside: HashMap<String, Tensor>,
}

/// Checks that the model takes windows of `length` tokens.
///
/// # Errors
/// If it does not, or is no decoder.
pub fn check_length(model: &Model, length: usize) -> Result<(), CalibrationError> {
    match Roles::find(model)?.max_positions {
        Some(capacity) if capacity < length => Err(CalibrationError::TooLong { length, capacity }),
        _ => Ok(()),
    }
}

/// Runs all windows, `batch` at a time, up to the first block. The number of windows must be a
/// multiple of the batch.
///
/// # Errors
/// If the graph is no decoder, the engine can't run it, or what a block reads from outside is not
/// the same for all windows.
pub fn capture(
    engine: &dyn Engine,
    model: &Model,
    blocks: &[BlockModel],
    windows: &[&[u32]],
    batch: usize,
) -> Result<Captured, CalibrationError> {
    let stream = blocks.first().map(|block| block.input);
    let stream = stream.ok_or(planish_passes::calibrate::CalibrateError::NoBlocks)?;
    let mut wanted: Vec<ValueId> = vec![stream];
    for outside in blocks.iter().flat_map(|block| &block.outside) {
        if !wanted.contains(outside) {
            wanted.push(*outside);
        }
    }
    let names: Vec<String> = wanted.iter().map(|v| model.graph.value(*v).name.clone()).collect();
    check_length(model, windows.first().map_or(0, |window| window.len()))?;
    let (executable, feeds) = compile_prefix(engine, model, &wanted, &names)?;
    let mut session = executable.session();
    let mut captured: Option<Captured> = None;
    for group in windows.chunks_exact(batch.max(1)) {
        session.reset(&[]);
        let tensors = feeds.make(group);
        let mut outputs = session.run(&tensors)?.into_iter();
        let states = outputs.next();
        let outside: HashMap<String, Tensor> = names[1..].iter().cloned().zip(outputs).collect();
        let hidden = states.ok_or_else(|| unexpected(&names[0], "it was not computed"))?;
        let data = hidden.to_f32_vec().map_err(|e| unexpected(&names[0], &e.to_string()))?;
        let length = group.first().map_or(0, |window| window.len());
        match &mut captured {
            None => {
                let mut states = States::new(length, data.len() / (length * batch).max(1));
                states.push(&data);
                captured = Some(Captured { states, outside });
            }
            Some(captured) => {
                check_outside(blocks, model, &captured.outside, &outside)?;
                captured.states.push(&data);
            }
        }
    }
    captured.ok_or(CalibrationError::TooShort { tokens: 0, batch, length: 0 })
}

fn compile_prefix(
    engine: &dyn Engine,
    model: &Model,
    wanted: &[ValueId],
    names: &[String],
) -> Result<(Box<dyn Executable>, Feeds), CalibrationError> {
    let roles = Roles::find(model)?;
    let mut prefix = model.clone();
    for value in wanted.iter().filter(|v| !model.graph.is_output(**v)) {
        prefix.graph.value_mut(*value).declared = true;
        prefix.graph.outputs.push(*value);
    }
    let options = LowerOptions { cache: true, no_padding: true };
    lower(&mut prefix, options, &mut PassManager::new())
        .map_err(crate::decoder::DecoderError::from)?;
    let options = CompileOptions { outputs: Some(names.to_vec()), ..CompileOptions::default() };
    let executable = engine.compile(&prefix, &options)?;
    let feeds = Feeds::new(&model.graph, &roles, executable.inputs())?;
    Ok((executable, feeds))
}

/// Positions, rotary tables and masks are alike for all windows; what is not can't be fixed.
fn check_outside(
    blocks: &[BlockModel],
    model: &Model,
    first: &HashMap<String, Tensor>,
    now: &HashMap<String, Tensor>,
) -> Result<(), CalibrationError> {
    for (block, outside) in
        blocks.iter().enumerate().flat_map(|(i, b)| b.outside.iter().map(move |o| (i, o)))
    {
        let name = &model.graph.value(*outside).name;
        if first.get(name) != now.get(name) {
            return Err(CalibrationError::Outside { block, value: name.clone() });
        }
    }
    Ok(())
}

fn unexpected(value: &str, problem: &str) -> CalibrationError {
    CalibrationError::Value { value: value.to_owned(), problem: problem.to_owned() }
}
