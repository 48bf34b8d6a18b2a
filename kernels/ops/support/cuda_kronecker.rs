//! Transforms of rows by P1 ⊗ P2, for learning, where TF32 is allowed: in one pass over the rows where the
//! factors are small enough, else by one large product, where the tensor cores make up for the zeros and repeated
//! factors that small products would leave out.

use planish_cuda::elementwise::{Kronecker, KroneckerRows};
use planish_ir::DataType;

use super::cuda_products::{CudaFactor, multiply};
use crate::ops::matmul::Plan;
use crate::{CudaContext, GpuTensor, OpError, ProductPrecision};

/// Rows from which on this pays.
const WORTH_ROWS: usize = 256;
/// Channels up to which the large product does.
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
            && x.rows() >= WORTH_ROWS
            && ((1..=MOST_CHANNELS).contains(&x.last()) || self.rows(context, &[x]).is_some())
    }

    /// The way by one pass, if it takes the factors, and tensors of rows.
    fn rows(&self, context: &CudaContext, tensors: &[&GpuTensor]) -> Option<KroneckerRows> {
        let rows = KroneckerRows { factors: self.factors(), rows: tensors[0].rows() };
        let at: Vec<_> = tensors.iter().map(|tensor| tensor.ptr()).collect();
        rows.fits(context.gpu, &at).then_some(rows)
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
        if let Some(rows) = self.rows(context, &[x]) {
            let y = context.tensor(DataType::F32, x.shape().to_vec())?;
            rows.transform(context.gpu, x.ptr(), y.ptr(), transposed)?;
            return Ok(y);
        }
        let (n, rows) = (x.last(), x.rows());
        let matrix = self.matrix(context)?;
        let flat = x.reshaped(vec![rows, n])?;
        let x_factor = CudaFactor { tensor: &flat, transposed: false };
        let p = CudaFactor { tensor: &matrix, transposed };
        let plan = Plan::new(&[rows, n], &[n, n])?;
        multiply(context, &plan, 1.0, x_factor, p, None)?.reshaped(x.shape().to_vec())
    }

    /// The gradients of x, P1 and P2, from those of the transformed rows.
    pub fn gradients(
        &self,
        context: &CudaContext,
        x: &GpuTensor,
        dy: &GpuTensor,
    ) -> Result<(GpuTensor, [Option<GpuTensor>; 2]), OpError> {
        let new = |p: Option<&GpuTensor>, n: usize| {
            p.map(|_| context.tensor(DataType::F32, vec![n, n])).transpose()
        };
        let of_factors = [new(self.p1, self.n1)?, new(self.p2, self.n2)?];
        let Some(rows) = self.rows(context, &[x, dy]) else {
            self.large_gradients(context, [x, dy], &of_factors)?;
            return Ok((self.transform(context, dy, true)?, of_factors));
        };
        let dx = context.tensor(DataType::F32, x.shape().to_vec())?;
        let to = [0, 1].map(|i| of_factors[i].as_ref().map(GpuTensor::ptr));
        rows.gradients(context.gpu, [dy.ptr(), x.ptr()], dx.ptr(), to)?;
        Ok((dx, of_factors))
    }

    /// Writes the gradients of P1 and P2, through that of P1 ⊗ P2.
    fn large_gradients(
        &self,
        context: &CudaContext,
        rows: [&GpuTensor; 2],
        [of_p1, of_p2]: &[Option<GpuTensor>; 2],
    ) -> Result<(), OpError> {
        let [n_rows, n] = [rows[0].rows(), rows[0].last()];
        let [x, dy] = rows.map(|tensor| tensor.reshaped(vec![n_rows, n]));
        let plan = Plan::new(&[n, n_rows], &[n_rows, n])?;
        let x = CudaFactor { tensor: &x?, transposed: true };
        let dy = CudaFactor { tensor: &dy?, transposed: false };
        let of_matrix = multiply(context, &plan, 1.0, x, dy, None)?;
        if let Some(to) = of_p1 {
            self.factors().left_gradient(context.gpu, of_matrix.ptr(), to.ptr())?;
        }
        if let Some(to) = of_p2 {
            self.factors().right_gradient(context.gpu, of_matrix.ptr(), to.ptr())?;
        }
        Ok(())
    }
}
