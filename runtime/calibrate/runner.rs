//! Running the graph of a block, with or without parameters.

use std::collections::HashMap;

use planish_ir::Model;
use planish_kernels::ProductPrecision;
use planish_kernels::buffers::BufferPool;

use super::CalibrationError;
use crate::engine::{CompileOptions, Engine, Session, Value};

/// Bytes of tensors that are kept from one step for the next.
const KEEP_BYTES: usize = 8 << 30;

/// Where graphs that run in turns take their memory from.
pub fn pool_of_steps() -> BufferPool {
    BufferPool::keeping(KEEP_BYTES)
}

/// How a graph is run.
pub struct RunnerOptions<'a> {
    /// What products are computed in.
    pub precision: ProductPrecision,
    /// Values of inputs that are the same in every run; there may be some of other graphs too.
    pub fixed: &'a HashMap<String, Value>,
    /// Names of inputs that change in place.
    pub parameters: Vec<String>,
    /// Where memory comes from.
    pub buffers: BufferPool,
}

/// A compiled graph with its inputs by name.
pub struct Runner {
    session: Box<dyn Session>,
    inputs: Vec<String>,
    /// Inputs that are the same in every run.
    fixed: HashMap<String, Value>,
}

impl Runner {
    /// Compiles all outputs of a graph.
    ///
    /// # Errors
    /// If the engine can't run it.
    pub fn new(
        engine: &dyn Engine,
        model: &Model,
        options: RunnerOptions<'_>,
    ) -> Result<Self, CalibrationError> {
        let RunnerOptions { precision, fixed, parameters, buffers } = options;
        let buffers = Some(buffers);
        let profile = tracing::enabled!(tracing::Level::DEBUG);
        let resident = fixed.keys().cloned().chain(parameters).collect();
        let options =
            CompileOptions { precision, buffers, profile, resident, ..CompileOptions::default() };
        let executable = engine.compile(model, &options)?;
        for (op, n) in &executable.summary().fallbacks {
            tracing::warn!("{n} × {op} runs by its slow reference form while calibrating");
        }
        let inputs: Vec<String> = executable.inputs().iter().map(|i| i.name.clone()).collect();
        let fixed = fixed.iter().filter(|(name, _)| inputs.contains(name));
        let fixed = fixed.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Self { session: executable.session(), inputs, fixed })
    }

    /// Runs it; `given` finds the inputs that are not fixed. The outputs hold until the next run.
    ///
    /// # Errors
    /// If an input is missing, or the engine fails.
    pub fn run(
        &mut self,
        given: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<Vec<Value>, CalibrationError> {
        let find = |name: &String| {
            let missing = || CalibrationError::Value {
                value: name.clone(),
                problem: "nothing feeds this input".into(),
            };
            self.fixed.get(name).cloned().or_else(|| given(name)).ok_or_else(missing)
        };
        let values = self.inputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        Ok(self.session.run_values(&values)?)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(profile) = self.session.profile() {
            tracing::debug!("calibration graph:\n{profile}");
        }
    }
}
