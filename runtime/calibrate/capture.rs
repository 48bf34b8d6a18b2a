//! What the blocks of a model read before anything is learned.

use std::collections::HashMap;

use planish_ir::{Model, Tensor, ValueId};
use planish_passes::PassManager;
use planish_passes::calibrate::BlockModel;
use planish_passes::lower::{LowerOptions, lower};

use super::CalibrationError;
use super::states::States;
use crate::decoder::{Feeds, Roles};
use crate::engine::{CompileOptions, Device, Engine, Executable, Value};

/// What goes into the blocks.
pub struct Captured {
    /// What the first block reads.
    pub states: States,
    /// What blocks read from outside of the residual stream, for a batch, by the name of the
    /// value in the whole model.
    pub outside: HashMap<String, Value>,
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
    let device = &*engine.device();
    let (mut states, mut outside): (Option<States>, HashMap<String, Tensor>) = Default::default();
    for group in windows.chunks_exact(batch.max(1)) {
        session.reset(&[]);
        let inputs: Vec<Value> = feeds.make(group).into_iter().map(Value::Host).collect();
        let mut outputs = session.run_values(&inputs)?.into_iter();
        let hidden = outputs.next().ok_or_else(|| unexpected(&names[0], "it was not computed"))?;
        let hidden = kept(device, hidden)?;
        let read = |(name, value): (&String, Value)| Ok((name.clone(), device.download(&value)?));
        let read: Result<HashMap<_, _>, CalibrationError> =
            names[1..].iter().zip(outputs).map(read).collect();
        let new = || match *hidden.shape() {
            [_, length, width] => Ok(States::new(length, width)),
            _ => Err(unexpected(&names[0], "it has no batch of sequences")),
        };
        match states {
            Some(_) => check_outside(blocks, model, &outside, &read?)?,
            None => (states, outside) = (Some(new()?), read?),
        }
        if let Some(states) = &mut states {
            states.push(device, &hidden)?;
        }
    }
    let states = states.ok_or(CalibrationError::TooShort { tokens: 0, batch, length: 0 })?;
    let keep = |(name, tensor): (String, Tensor)| {
        // What is no float is read by the host: shapes, positions.
        let is_float = tensor.dtype().is_float();
        Ok((name, if is_float { device.upload(&tensor)? } else { Value::Host(tensor) }))
    };
    let outside = outside.into_iter().map(keep).collect::<Result<_, CalibrationError>>()?;
    Ok(Captured { states, outside })
}

/// The value where the engine keeps tensors.
fn kept(device: &dyn Device, value: Value) -> Result<Value, CalibrationError> {
    match value {
        Value::Host(tensor) => Ok(device.upload(&tensor)?),
        Value::Device(_) => Ok(value),
    }
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
