//! Transforms of rows by one large product with P1 ⊗ P2, for learning: where TF32 is allowed, the tensor
//! cores make up for the zeros and repeated factors that small products would leave out.

use planish_cuda::elementwise::Kronecker;
use planish_ir::DataType;

use super::cuda_products::{CudaFactor, multiply};
use crate::ops::matmul::Plan;
use crate::{CudaContext, GpuTensor, OpError, ProductPrecision};

/// Rows from which on the product pays.
const WORTH_ROWS: usize = 256;
/// Channels up to which it does.
const MOST_CHANNELS: usize = 2048;

/// P1 and P2, f32; an absent one is the identity.
#[derive(Clone, Copy)]
pub(in crate::ops) struct CudaKronecker<'a> {
    pub p1: Option<&'a GpuTensor>,
    pub p2: Option<&'a GpuTensor>,
    pub n1: usize,
    pub n2: usize,
}

impl CudaKronecker<'_> {
    /// Whether rows of x are transformed so.
    pub fn suits(&self, context: &CudaContext, x: &GpuTensor) -> bool {
        let is_float = |t: &GpuTensor| t.dtype() == DataType::F32;
        let factors = [(self.p1, self.n1), (self.p2, self.n2)];
        context.precision == ProductPrecision::BF16
            && is_float(x)
            && factors.iter().all(|(p, n)| p.is_none_or(|p| is_float(p) && p.shape() == [*n, *n]))
            && self.n1 * self.n2 == x.last()
            && (1..=MOST_CHANNELS).contains(&x.last())
            && x.rows() >= WORTH_ROWS
    }

    fn factors(&self) -> Kronecker {
        let at = |p: Option<&GpuTensor>| p.map(GpuTensor::ptr);
        Kronecker { left: at(self.p1), right: at(self.p2), n1: self.n1, n2: self.n2 }
    }

    /// P1 ⊗ P2.
    pub fn matrix(&self, context: &CudaContext) -> Result<GpuTensor, OpError> {
        let n = self.n1 * self.n2;
        let matrix = context.tensor(DataType::F32, vec![n, n])?;
        self.factors().product(context.gpu, matrix.ptr())?;
        Ok(matrix)
    }

    /// The rows of x times P1 ⊗ P2, or its transpose.
    pub fn transform(
        &self,
        context: &CudaContext,
        x: &GpuTensor,
        transposed: bool,
    ) -> Result<GpuTensor, OpError> {
        let (n, rows) = (x.last(), x.rows());
        let matrix = self.matrix(context)?;
        let flat = x.reshaped(vec![rows, n])?;
        let x_factor = CudaFactor { tensor: &flat, transposed: false };
        let p = CudaFactor { tensor: &matrix, transposed };
        let plan = Plan::new(&[rows, n], &[n, n])?;
        multiply(context, &plan, 1.0, x_factor, p, None)?.reshaped(x.shape().to_vec())
    }

    /// The gradients of P1 and P2, from those of the transformed rows.
    pub fn gradients(
        &self,
        context: &CudaContext,
        x: &GpuTensor,
        dy: &GpuTensor,
    ) -> Result<[Option<GpuTensor>; 2], OpError> {
        let (n, rows) = (x.last(), x.rows());
        let (x, dy) = (x.reshaped(vec![rows, n])?, dy.reshaped(vec![rows, n])?);
        let plan = Plan::new(&[n, rows], &[rows, n])?;
        let x = CudaFactor { tensor: &x, transposed: true };
        let dy = CudaFactor { tensor: &dy, transposed: false };
        let of_matrix = multiply(context, &plan, 1.0, x, dy, None)?;
        let new = |p: Option<&GpuTensor>, n: usize| {
            p.map(|_| context.tensor(DataType::F32, vec![n, n])).transpose()
        };
        let (of_p1, of_p2) = (new(self.p1, self.n1)?, new(self.p2, self.n2)?);
        if let Some(to) = &of_p1 {
            self.factors().left_gradient(context.gpu, of_matrix.ptr(), to.ptr())?;
        }
        if let Some(to) = &of_p2 {
            self.factors().right_gradient(context.gpu, of_matrix.ptr(), to.ptr())?;
        }
        Ok([of_p1, of_p2])
    }
}
