//! The fast form of `Linear`.

use planish_cpu::{MatMut, MatRef};
use planish_ir::Tensor;

use super::is_transposed;
use crate::kernel::required;
use crate::ops::support::held::Held;
use crate::ops::support::products::multiply;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct Linear {
    transposed: bool,
    weight: Held,
    bias: Held,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (weight, bias) = (Held::new(constants, 1)?, Held::new(constants, 2)?);
    Ok(Some(Box::new(Linear { transposed: is_transposed(op), weight, bias })))
}

impl Kernel for Linear {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = required(inputs, 0)?;
        let data = x.as_slice::<f32>()?;
        let (weight, shape) = self.weight.get(inputs)?;
        let &[first, second] = shape else {
            return Err(OpError::shape(format!("a weight must be a matrix, not {shape:?}")));
        };
        let weight = MatRef::new(&weight, first, second);
        let weight = if self.transposed { weight.t() } else { weight };
        let (k, n) = (weight.rows, weight.cols);
        let m = rows::count(x, k)?;
        let bias = match self.bias.get_optional(inputs)? {
            Some(_) => Some(self.bias.vector(inputs, n)?),
            None => None,
        };
        let y = rows::f32_output(context, rows::with_last(x, n), |y| {
            let beta = fill(y, bias.as_deref());
            let (a, c) = (MatRef::new(&data, m, k), MatMut::new(y, m, n));
            multiply(context, 1.0, a, weight, beta, c);
        })?;
        Ok(vec![y])
    }

    fn owns_input(&self, index: usize) -> bool {
        self.weight.owns(index) || self.bias.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }
}

/// Fills the rows of `y` with the bias; returns the factor on what is there before the product.
fn fill(y: &mut [f32], bias: Option<&[f32]>) -> f32 {
    let Some(bias) = bias.filter(|bias| !bias.is_empty()) else { return 0.0 };
    y.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
    1.0
}
