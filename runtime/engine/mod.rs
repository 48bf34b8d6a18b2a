//! Engines: what compiles a graph to a plan and runs the plan.
pub mod cpu;
pub mod cuda;

mod constants;
pub(crate) mod device;
mod error;
pub(crate) mod facts;
mod front;
mod profile;

use std::sync::Arc;

use planish_ir::{DataType, Dim, Model, Tensor};
use planish_kernels::ProductPrecision;
use planish_kernels::buffers::BufferPool;

pub use device::{Device, Moved, Optimizer};
pub use error::EngineError;
pub use planish_kernels::cuda_kernel::Value;
pub use profile::{OpTime, Profile};

/// Compiles graphs for one kind of device.
pub trait Engine: Send + Sync {
    /// Short name for messages: `cpu`, `cuda`.
    fn name(&self) -> &'static str;

    /// Where it keeps tensors between runs.
    fn device(&self) -> Arc<dyn Device>;

    /// Positions of a prompt that are best run at once: enough to be fast, and no more, as they
    /// take memory.
    fn best_chunk(&self) -> usize {
        512
    }

    /// Whether a token is better chosen on the device than from logits on the host.
    fn chooses_tokens(&self) -> bool {
        false
    }

    /// Makes a graph ready to run: order, memory, kernels with packed weights.
    ///
    /// The result holds on to the bytes of the constants that it runs on as they are, and to
    /// nothing else of the model.
    ///
    /// # Errors
    /// [`EngineError`]; an operator that nobody defines is one only where a wanted output needs it.
    fn compile(
        &self,
        model: &Model,
        options: &CompileOptions,
    ) -> Result<Box<dyn Executable>, EngineError>;
}

/// What to compile.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Names of the outputs to compute, in the order in which a run returns them; nothing means
    /// all that are not carried.
    pub outputs: Option<Vec<String>>,
    /// Inputs that are fed from outputs of the run before, as (input, output): the tensors stay
    /// with the session, on the device.
    pub carried: Vec<(String, String)>,
    /// Inputs of [`Session::run_values`] that are in the same memory in every run: fixed ones, and
    /// those that change in place. Values of other inputs are copied, if need be.
    pub resident: Vec<String>,
    /// Whether sessions measure the time that every node takes.
    pub profile: bool,
    /// What large f32 matrix products are computed in.
    pub precision: ProductPrecision,
    /// Where sessions take the memory of tensors from; nothing gives each a pool of its own that
    /// keeps what suits decoding. A graph that is run many times on large tensors wants all of
    /// its memory back: what goes to the system and comes again is cleared each time.
    pub buffers: Option<BufferPool>,
}

/// An input or output of a compiled graph.
#[derive(Debug, Clone, PartialEq)]
pub struct IoInfo {
    /// Its name in the graph.
    pub name: String,
    /// Element type, if known.
    pub dtype: Option<DataType>,
    /// Sizes, if the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// For an input with an initializer: the value where the caller has none of its own.
    pub default: Option<Tensor>,
}

/// What a compiled graph consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// Nodes that run.
    pub steps: usize,
    /// Nodes that were computed at compile time because all their inputs are constant.
    pub folded: usize,
    /// Operators without a form of this engine and how many nodes of each there are: they run by
    /// their slow reference evaluation.
    pub fallbacks: Vec<(String, usize)>,
    /// Bytes of weights and other constants, as the engine holds them.
    pub weight_bytes: u64,
}

/// A compiled graph; sessions share its weights.
pub trait Executable: Send + Sync {
    /// The inputs to feed, in order; carried ones are not among them.
    fn inputs(&self) -> &[IoInfo];

    /// The outputs that a run returns, in order.
    fn outputs(&self) -> &[IoInfo];

    /// What it consists of.
    fn summary(&self) -> &PlanSummary;

    /// A new session with empty caches; carried inputs have no value before
    /// [`Session::reset`].
    fn session(&self) -> Box<dyn Session>;
}

/// The changing part of a compiled graph: KV caches, carried tensors, scratch memory.
pub trait Session: Send {
    /// Runs the graph once on one tensor for each of [`Executable::inputs`].
    ///
    /// # Errors
    /// [`EngineError`]; carried tensors are then as they were before, caches may have grown
    /// (see [`Session::rollback`]).
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError>;

    /// Runs the graph once, and returns only the outputs with these indices, in their order: the
    /// others need not come from the device.
    ///
    /// # Errors
    /// As [`Session::run`]; an index that is none of an output.
    fn run_for(
        &mut self,
        inputs: &[Tensor],
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, EngineError> {
        let all = self.run(inputs)?;
        let output = |index: &usize| {
            all.get(*index).cloned().ok_or_else(|| EngineError::NoOutput(format!("output {index}")))
        };
        outputs.iter().map(output).collect()
    }

    /// Runs the graph once on values where the engine keeps them; the outputs are there too. They
    /// hold until the next run of this session: who wants them longer makes a copy. The engine may
    /// record the run and replay it when it comes again with the same shapes.
    ///
    /// # Errors
    /// As [`Session::run`].
    fn run_values(&mut self, inputs: &[Value]) -> Result<Vec<Value>, EngineError>;

    /// Empties the caches, and gives the carried inputs the values `carried`, in the order of
    /// [`CompileOptions::carried`].
    fn reset(&mut self, carried: &[Tensor]);

    /// Remembers the state of caches and carried tensors.
    fn mark(&mut self);

    /// Returns to the state at the last [`Session::mark`]. The caches must have grown only.
    fn rollback(&mut self);

    /// Bytes that the positions in the caches and the carried tensors take.
    fn cache_bytes(&self) -> u64;

    /// Where the time went, if [`CompileOptions::profile`] was set.
    fn profile(&self) -> Option<Profile>;
}

impl IoInfo {
    /// Checks element type, rank and the sizes that are numbers.
    ///
    /// # Errors
    /// [`EngineError::Input`], naming the input.
    pub fn check(&self, tensor: &Tensor) -> Result<(), EngineError> {
        self.check_kind(tensor.dtype(), tensor.shape())
    }

    /// As [`IoInfo::check`]. On a device, floats may be of another type than in the graph.
    ///
    /// # Errors
    /// [`EngineError::Input`], naming the input.
    pub fn check_value(&self, value: &Value) -> Result<(), EngineError> {
        match value {
            Value::Host(tensor) => self.check(tensor),
            Value::Device(tensor) => {
                let floats = tensor.dtype().is_float();
                let declared = self.dtype.filter(|dtype| floats && dtype.is_float());
                self.check_kind(declared.unwrap_or(tensor.dtype()), tensor.shape())
            }
        }
    }

    fn check_kind(&self, dtype: DataType, sizes: &[usize]) -> Result<(), EngineError> {
        let fits_type = self.dtype.is_none_or(|declared| declared == dtype);
        let fits_shape = self.shape.as_ref().is_none_or(|shape| {
            let fits =
                |(dim, size): (&Dim, &usize)| dim.as_const().is_none_or(|d| d == *size as i64);
            shape.len() == sizes.len() && shape.iter().zip(sizes).all(fits)
        });
        if fits_type && fits_shape {
            return Ok(());
        }
        Err(EngineError::Input {
            name: self.name.clone(),
            expected: self.describe(),
            got: format!("{dtype} {sizes:?}"),
        })
    }

    fn describe(&self) -> String {
        let dtype = self.dtype.map_or("any type", DataType::name);
        match &self.shape {
            Some(shape) => format!("{dtype} {shape:?}"),
            None => dtype.to_owned(),
        }
    }
}
