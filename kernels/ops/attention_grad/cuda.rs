//! The CUDA form of `AttentionGrad`: as learning takes it, or the probabilities in memory, and products
//! of whole matrices.

use planish_cuda::attention::DenseGradients;
use planish_cuda::elementwise::{Heads, softmax_grad};
use planish_ir::Tensor;

use crate::ops::attention::cuda::{Attended, heads, present};
use crate::ops::attention::dense;
use crate::ops::matmul::Plan;
use crate::ops::support::cuda::{Made, Outputs, kernel, like, number, put};
use crate::ops::support::cuda_products::{CudaFactor, multiply};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError, OpNode};

/// Stages of the scores, as `qk_matmul_output_mode` numbers them.
const CAPPED: i32 = 1;
const SOFTMAX: i32 = 3;

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    kernel(op, run, &[])
}

/// dv = Pᵀ·dy, dP = dy·vᵀ, dS of it, dq = dS·k, dk = dSᵀ·q. The query heads that share a key head
/// lie one after the other: they count as rows of one matrix.
fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let count = |name| usize::try_from(op.node.int(name, 0)).unwrap_or(0);
    let (q_heads, kv_heads) = (count("q_num_heads"), count("kv_num_heads"));
    let input = |i: usize, n| -> Result<(&GpuTensor, Heads), OpError> {
        Ok((inputs.device(i)?, heads(inputs.device(i)?, n)?))
    };
    let (dy, q) = (input(0, q_heads)?, input(1, q_heads)?);
    let (k, v) = (input(2, kv_heads)?, input(3, kv_heads)?);
    if dy.1 != (Heads { size: v.1.size, ..q.1 }) {
        return Err(OpError::shape("the gradient is not of the shape of the result"));
    }
    let attended = Attended { q, k, v, mask: inputs.optional(4), lengths: None, n_past: 0 };
    if let Some(attention) = attended.dense(op, context) {
        let [dq, dk, dv] = [q.0, k.0, v.0].map(|x| like(context, x));
        let (dq, dk, dv) = (dq?, dk?, dv?);
        let [of_q, of_k, of_v] = [&dq, &dk, &dv].map(|x| x.ptr());
        let gradients = DenseGradients { dy: dy.0.ptr(), dq: of_q, dk: of_k, dv: of_v };
        attention.backward(context.gpu, &gradients)?;
        return Ok([dq, dk, dv].into_iter().take(op.n_outputs()).collect());
    }
    let (_, p) = attended.run(op, context, Some(SOFTMAX))?;
    let p = p.ok_or_else(|| OpError::unsupported("no probabilities"))?;
    let cap = op.node.float("softcap", 0.0);
    let capped = match cap > 0.0 {
        true => attended.run(op, context, Some(CAPPED))?.1,
        false => None,
    };
    let (batch, shared) = (q.1.batch * k.1.heads, q.1.heads / k.1.heads * q.1.rows);
    let (keys, d, dv) = (k.1.rows, q.1.size, v.1.size);
    let rows = |(x, layout): (&GpuTensor, Heads), rows: usize, size: usize| {
        present(context, x, layout, None)?.reshaped(vec![batch, rows, size])
    };
    let (dy_rows, q_rows) = (rows(dy, shared, dv)?, rows(q, shared, d)?);
    let (k_rows, v_rows) = (rows(k, keys, d)?, rows(v, keys, dv)?);
    let p = p.reshaped(vec![batch, shared, keys])?;
    let product = |a: &GpuTensor, a_turned, b: &GpuTensor, b_turned, sizes: [usize; 3]| {
        let [m, inner, n] = sizes;
        let plan = Plan::new(&[batch, m, inner], &[batch, inner, n])?;
        let a = CudaFactor { tensor: a, transposed: a_turned };
        let b = CudaFactor { tensor: b, transposed: b_turned };
        multiply(context, &plan, 1.0, a, b, None)
    };
    let of_v = product(&p, true, &dy_rows, false, [keys, shared, dv])?;
    let ds = product(&dy_rows, false, &v_rows, true, [shared, dv, keys])?;
    let capped = capped.as_ref().map(|capped| (capped.ptr(), cap));
    let (pair, sizes) = ((p.ptr(), ds.ptr()), (batch * shared, keys));
    let scale = dense::scale(op, d);
    softmax_grad(context.gpu, number(ds.dtype())?, pair, capped, scale, sizes)?;
    let of_q = product(&ds, false, &k_rows, false, [shared, keys, d])?;
    let of_k = product(&ds, true, &q_rows, false, [keys, shared, d])?;
    let gradients = [(of_q, q), (of_k, k), (of_v, v)];
    gradients.iter().take(op.n_outputs()).map(|(x, like)| back(context, x, *like)).collect()
}

/// Heads one after the other, in the layout of `like`.
fn back(
    context: &CudaContext,
    x: &GpuTensor,
    (like, layout): (&GpuTensor, Heads),
) -> Result<GpuTensor, OpError> {
    let Heads { batch, heads, rows, size, head_major } = layout;
    if head_major {
        return x.reshaped(like.shape().to_vec());
    }
    let y = context.tensor(x.dtype(), like.shape().to_vec())?;
    let [of_batch, of_head, of_row] = layout.steps();
    let x = x.reshaped(vec![batch, heads, rows, size])?;
    put(context, &x, &y, 0, &[of_batch, of_head, of_row, 1])?;
    Ok(y)
}
