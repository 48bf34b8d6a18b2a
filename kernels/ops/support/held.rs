//! Inputs that a kernel keeps when they are constants.

use std::borrow::Cow;

use planish_ir::{DataType, Tensor};

use crate::OpError;
use crate::kernel::required;

/// A float input: kept as f32 if it was a constant, else read at each run. Kernels that leave
/// some inputs to the reference evaluation keep it without owning it.
pub(in crate::ops) struct Held {
    index: usize,
    kept: Option<Tensor>,
}

/// Elements and shape.
pub(in crate::ops) type View<'a> = (Cow<'a, [f32]>, &'a [usize]);

impl Held {
    /// The input at `index`.
    pub fn new(constants: &[Option<Tensor>], index: usize) -> Result<Self, OpError> {
        let constant = crate::op::optional(constants, index).filter(|t| t.dtype().is_float());
        let kept = constant.map(resident).transpose()?;
        Ok(Self { index, kept })
    }

    /// Whether the kernel keeps the input at `index`.
    pub fn owns(&self, index: usize) -> bool {
        index == self.index && self.kept.is_some()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |tensor| tensor.bytes().len())
    }

    /// The kept form, or what this run was given.
    pub fn get<'a>(&'a self, inputs: &[Option<&'a Tensor>]) -> Result<View<'a>, OpError> {
        let tensor = match &self.kept {
            Some(tensor) => tensor,
            None => required(inputs, self.index)?,
        };
        Ok((tensor.as_slice::<f32>()?, tensor.shape()))
    }

    /// As [`Held::get`], if the input is there at all.
    pub fn get_optional<'a>(
        &'a self,
        inputs: &[Option<&'a Tensor>],
    ) -> Result<Option<View<'a>>, OpError> {
        let given = inputs.get(self.index).copied().flatten();
        if self.kept.is_none() && given.is_none() {
            return Ok(None);
        }
        self.get(inputs).map(Some)
    }

    /// As [`Held::get`], for a vector of `n` elements.
    pub fn vector<'a>(
        &'a self,
        inputs: &[Option<&'a Tensor>],
        n: usize,
    ) -> Result<Cow<'a, [f32]>, OpError> {
        let (data, shape) = self.get(inputs)?;
        if data.len() != n {
            return Err(OpError::shape(format!("{shape:?} where {n} elements are needed")));
        }
        Ok(data)
    }
}

/// The same bytes where they can be read in place as f32, else an f32 copy.
fn resident(tensor: &Tensor) -> Result<Tensor, OpError> {
    let in_place =
        tensor.dtype() == DataType::F32 && matches!(tensor.as_slice::<f32>(), Ok(Cow::Borrowed(_)));
    if in_place {
        return Ok(tensor.clone());
    }
    Ok(Tensor::from_vec(tensor.shape(), tensor.to_f32_vec()?))
}
