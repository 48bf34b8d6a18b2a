//! Running the graph of a block, with or without parameters.

use std::collections::HashMap;

use planish_ir::{Model, Tensor};
use planish_kernels::ProductPrecision;
use planish_kernels::buffers::BufferPool;

use super::CalibrationError;
use crate::engine::{CompileOptions, Engine, Session};

/// Bytes of tensors that are kept from one step for the next.
const KEEP_BYTES: usize = 8 << 30;

/// Where graphs that run in turns take their memory from.
pub fn pool_of_steps() -> BufferPool {
    BufferPool::keeping(KEEP_BYTES)
}

/// A compiled graph with its inputs by name.
pub struct Runner {
    session: Box<dyn Session>,
    inputs: Vec<String>,
    /// Inputs that are the same in every run.
    fixed: HashMap<String, Tensor>,
}

impl Runner {
    /// Compiles all outputs of a graph. `fixed` may hold tensors for inputs of other graphs too.
    ///
    /// # Errors
    /// If the engine can't run it.
    pub fn new(
        engine: &dyn Engine,
        model: &Model,
        precision: ProductPrecision,
        fixed: &HashMap<String, Tensor>,
        buffers: BufferPool,
    ) -> Result<Self, CalibrationError> {
        let buffers = Some(buffers);
        let profile = tracing::enabled!(tracing::Level::DEBUG);
        let options = CompileOptions { precision, buffers, profile, ..CompileOptions::default() };
        let executable = engine.compile(model, &options)?;
        for (op, n) in &executable.summary().fallbacks {
            tracing::warn!("{n} × {op} runs by its slow reference form while calibrating");
        }
        let inputs: Vec<String> = executable.inputs().iter().map(|i| i.name.clone()).collect();
        let fixed = fixed.iter().filter(|(name, _)| inputs.contains(name));
        let fixed = fixed.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        Ok(Self { session: executable.session(), inputs, fixed })
    }

    /// Runs it; `given` finds the inputs that are not fixed.
    ///
    /// # Errors
    /// If an input is missing, or the engine fails.
    pub fn run(
        &mut self,
        given: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<Vec<Tensor>, CalibrationError> {
        let find = |name: &String| {
            let missing = || CalibrationError::Value {
                value: name.clone(),
                problem: "nothing feeds this input".into(),
            };
            self.fixed.get(name).cloned().or_else(|| given(name)).ok_or_else(missing)
        };
        let tensors = self.inputs.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        Ok(self.session.run(&tensors)?)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(profile) = self.session.profile() {
            tracing::debug!("calibration graph:\n{profile}");
        }
    }
}
