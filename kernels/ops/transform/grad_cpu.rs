//! The fast form of the gradients of the transforms.

use planish_cpu::{Isa, transform_rows_grad};
use planish_ir::Tensor;

use crate::kernel::required;
use crate::ops::support::factors::Factors;
use crate::ops::support::rows;
use crate::{CpuContext, Kernel, OpError, OpNode};

struct TransformGrad {
    factors: Factors,
    n_outputs: usize,
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let factors = Factors::new(constants, 2)?;
    Ok(Some(Box::new(TransformGrad { factors, n_outputs: op.n_outputs() })))
}

impl Kernel for TransformGrad {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let (dy, x) = (required(inputs, 0)?, required(inputs, 1)?);
        if dy.shape() != x.shape() {
            return Err(OpError::shape(format!("dY is {:?}, X {:?}", dy.shape(), x.shape())));
        }
        let (dy, data) = (dy.as_slice::<f32>()?, x.as_slice::<f32>()?);
        self.factors.with(inputs, x, |transform| {
            let (n1, n2) = (transform.n1, transform.n2);
            let len = |p: Option<&[f32]>| p.map_or(0, <[f32]>::len);
            let mut factors = vec![0.0; len(transform.p1) + len(transform.p2)];
            let dx = rows::f32_output(context, x.shape().to_vec(), |dx| {
                let (pool, isa) = (context.pool, Isa::best());
                transform_rows_grad(pool, isa, &dy, &data, transform, dx, &mut factors);
            })?;
            let dp2 = factors.split_off(len(transform.p1));
            let mut outputs = vec![dx, Tensor::from_vec(&[n1, n1], factors)];
            outputs.extend(transform.p2.map(|_| Tensor::from_vec(&[n2, n2], dp2)));
            outputs.truncate(self.n_outputs);
            Ok(outputs)
        })
    }

    fn owns_input(&self, index: usize) -> bool {
        self.factors.owns(index)
    }

    fn weight_bytes(&self) -> usize {
        self.factors.bytes()
    }
}
