//! Inputs that a kernel keeps in its own form when they are constants.

use std::borrow::Cow;

use planish_ir::Tensor;

use crate::OpError;
use crate::kernel::required;

/// A float input: kept if it was a constant, else read at each run.
pub(in crate::ops) struct Held {
    index: usize,
    kept: Option<(Vec<f32>, Vec<usize>)>,
}

/// Elements and shape.
pub(in crate::ops) type View<'a> = (Cow<'a, [f32]>, &'a [usize]);

impl Held {
    /// The input at `index`.
    pub fn new(constants: &[Option<Tensor>], index: usize) -> Result<Self, OpError> {
        let constant = crate::op::optional(constants, index);
        let kept = constant.map(|t| Ok::<_, OpError>((t.to_f32_vec()?, t.shape().to_vec())));
        Ok(Self { index, kept: kept.transpose()? })
    }

    /// Whether the kernel keeps the input at `index`.
    pub fn owns(&self, index: usize) -> bool {
        index == self.index && self.kept.is_some()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |(data, _)| data.len() * size_of::<f32>())
    }

    /// The kept form, or what this run was given.
    pub fn get<'a>(&'a self, inputs: &[Option<&'a Tensor>]) -> Result<View<'a>, OpError> {
        match &self.kept {
            Some((data, shape)) => Ok((Cow::Borrowed(data), shape)),
            None => {
                let tensor = required(inputs, self.index)?;
                Ok((tensor.as_slice::<f32>()?, tensor.shape()))
            }
        }
    }
}
