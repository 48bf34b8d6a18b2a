//! Where an engine keeps tensors between runs, and what learning does to them there.

use planish_ir::Tensor;

use super::{EngineError, Value};

/// Where an engine keeps tensors between runs. Floats are f32 here, whatever graphs compute in.
pub trait Device: Send + Sync {
    /// A copy of a tensor.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError>;

    /// The tensor in host memory, after all that was started.
    ///
    /// # Errors
    /// What went wrong on the device meanwhile.
    fn download(&self, value: &Value) -> Result<Tensor, EngineError>;

    /// Gives a value of the same type and shape other elements. Graphs that read it as a
    /// [`super::CompileOptions::resident`] input see them.
    ///
    /// # Errors
    /// If type or shape differ.
    fn write(&self, value: &mut Value, tensor: &Tensor) -> Result<(), EngineError>;

    /// Elements from `start` on as a tensor of `shape`; memory is shared.
    ///
    /// # Errors
    /// If there are not so many.
    fn part(&self, of: &Value, start: usize, shape: &[usize]) -> Result<Value, EngineError>;

    /// A new tensor of `shape`: the elements of all parts, f32, one after the other.
    ///
    /// # Errors
    /// If their number is another.
    fn join(&self, parts: &[Value], shape: &[usize]) -> Result<Value, EngineError>;

    /// An optimiser of tensors of `sizes` elements, before its first step.
    ///
    /// # Errors
    /// If there is no memory for its moments.
    fn adamw(&self, sizes: &[usize]) -> Result<Box<dyn Optimizer>, EngineError>;

    /// Steps to start before the result of the first is asked for: with one, the device would wait
    /// for the host.
    fn steps_ahead(&self) -> usize {
        1
    }
}

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101), without decay.
pub trait Optimizer: Send {
    /// Moves every tensor that has a gradient a step, in the order of the sizes; rates are multiplied
    /// by `factor`. A gradient with an element that is no finite number moves nothing.
    ///
    /// # Errors
    /// If a tensor has another size, or the device fails.
    fn step(&mut self, tensors: &mut [Moved<'_>], factor: f32) -> Result<(), EngineError>;
}

/// A tensor that takes part in a step.
pub struct Moved<'a> {
    /// What is moved; the memory stays the same.
    pub value: &'a mut Value,
    /// Of the same size; nothing leaves the value as it is.
    pub gradient: Option<&'a Value>,
    /// The rate.
    pub rate: f32,
}

/// Decay rates of the moments, the second one's as suits some hundred steps, and the floor of
/// the divisor.
pub(super) const BETA_1: f32 = 0.9;
pub(super) const BETA_2: f32 = 0.99;
pub(super) const EPSILON: f32 = 1e-8;
