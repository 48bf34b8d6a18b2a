//! Matrix products on the device: cuBLAS where it takes them and is installed, else our own kernel.

use planish_cuda::cublas::{self, Batched, Gemm};
use planish_cuda::elementwise::{Binary, Product, Walk};
use planish_cuda::{Element, GpuError};
use planish_ir::DataType;

use super::cuda::{binary, number};
use crate::ops::matmul::Plan;
use crate::{CudaContext, GpuTensor, OpError, ProductPrecision};

/// Multiply-adds from which on starting cuBLAS pays.
const WORTH_CUBLAS: usize = 1 << 16;

/// A factor: a dense tensor whose matrices are taken as they are, or transposed.
#[derive(Clone, Copy)]
pub(in crate::ops) struct CudaFactor<'a> {
    pub tensor: &'a GpuTensor,
    pub transposed: bool,
}

impl CudaFactor<'_> {
    /// Steps between rows and between columns, of a matrix with `rows` rows and `columns` columns
    /// as it takes part.
    fn steps(&self, rows: usize, columns: usize) -> [i64; 2] {
        if self.transposed { [1, rows as i64] } else { [columns as i64, 1] }
    }
}

/// alpha · a · b + bias, batched as `plan` says.
pub(in crate::ops) fn multiply(
    context: &CudaContext,
    plan: &Plan,
    alpha: f32,
    a: CudaFactor,
    b: CudaFactor,
    bias: Option<&GpuTensor>,
) -> Result<GpuTensor, OpError> {
    if a.tensor.dtype() != b.tensor.dtype() {
        let (a, b) = (a.tensor.dtype(), b.tensor.dtype());
        return Err(OpError::unsupported(format!("the factors are of types {a} and {b}")));
    }
    let y = context.tensor(a.tensor.dtype(), plan.shape.clone())?;
    if by_cublas(context, plan, alpha, (a, b), &y)? {
        return match bias {
            Some(bias) => binary(context, Binary::Add, &y, bias),
            None => Ok(y),
        };
    }
    let (m, k, n) = (plan.m, plan.k, plan.n);
    Product {
        a: (a.tensor.ptr(), a.steps(m, k)),
        b: (b.tensor.ptr(), b.steps(k, n)),
        bias: bias.map(GpuTensor::ptr),
        y: y.ptr(),
        m,
        k,
        n,
        alpha,
        batch: batch(plan)?,
    }
    .run(context.gpu, number(a.tensor.dtype())?)?;
    Ok(y)
}

/// Where the factors of each product begin.
fn batch(plan: &Plan) -> Result<Walk<2>, GpuError> {
    let (left, right) = ((plan.m * plan.k) as i64, (plan.k * plan.n) as i64);
    let axes = plan.axes().map(|(size, a, b)| (size, [a as i64 * left, b as i64 * right]));
    Walk::new(&axes.collect::<Vec<_>>())
}

/// Multiplies by cuBLAS if the factors are floats that lie as it takes them, the product is large
/// enough, and cuBLAS is there. Products may be f32 where the factors are not.
pub(in crate::ops) fn by_cublas(
    context: &CudaContext,
    plan: &Plan,
    alpha: f32,
    (a, b): (CudaFactor, CudaFactor),
    y: &GpuTensor,
) -> Result<bool, OpError> {
    let (Some(element), Some(out_element)) = (element(a.tensor), element(y)) else {
        return Ok(false);
    };
    let work = plan.n_products() * plan.m * plan.k * plan.n;
    if work < WORTH_CUBLAS || plan.k == 0 {
        return Ok(false);
    }
    let tf32 = context.precision == ProductPrecision::BF16;
    // Rows of all products make one matrix where they share the right factor.
    let is_one = plan.n_products() == 1 || plan.has_one_right() && !a.transposed;
    let multiplied = if is_one && element == out_element {
        let gemm = Gemm {
            rows: plan.m * plan.n_products(),
            k: plan.k,
            n: plan.n,
            x: a.tensor.ptr(),
            trans_x: a.transposed,
            w: b.tensor.ptr(),
            trans_w: b.transposed,
            out: y.ptr(),
            element,
            alpha,
            accumulate: false,
            tf32,
        };
        cublas::gemm(context.gpu, gemm)
    } else {
        let walk = batch(plan)?;
        let (count, [a_step, b_step]) = match walk.axes() {
            [] => (1, [0; 2]),
            [axis] => *axis,
            _ => return Ok(false),
        };
        let batched = Batched {
            count,
            sizes: [plan.m, plan.k, plan.n],
            a: (a.tensor.ptr(), a.transposed, a_step),
            b: (b.tensor.ptr(), b.transposed, b_step),
            out: y.ptr(),
            alpha,
            element,
            out_element,
            tf32,
        };
        cublas::gemm_batched(context.gpu, &batched)
    };
    match multiplied {
        Ok(()) => Ok(true),
        Err(GpuError::NoLibrary { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn element(x: &GpuTensor) -> Option<Element> {
    match x.dtype() {
        DataType::F32 => Some(Element::F32),
        DataType::F16 => Some(Element::F16),
        DataType::BF16 => Some(Element::BF16),
        _ => None,
    }
}
