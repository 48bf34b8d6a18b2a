//! The CUDA form of `Attention`, with every mask and output that it has.

use planish_cuda::attention::DenseAttention;
use planish_cuda::elementwise::{Heads, Mask, Scores};
use planish_ir::{DataType, Tensor};

use super::mask::Place;
use super::{dense, stage_number};
use crate::ops::matmul::Plan;
use crate::ops::support::cuda::{Made, Outputs, cast, kernel, number, put, steps};
use crate::ops::support::cuda_products::{CudaFactor, by_cublas, multiply};
use crate::{CudaContext, CudaInputs, CudaPrepare, GpuTensor, OpError, OpNode, ProductPrecision};

/// From how many queries on products of whole matrices pay.
const WORTH_PRODUCTS: usize = 64;
/// How many scores are held at once.
const MOST_SCORES: usize = 1 << 28;
/// The last stage of the scores.
const SOFTMAX: i32 = 3;

pub(super) fn cuda(op: &OpNode, _: &CudaPrepare<'_>, _: &[Option<Tensor>]) -> Made {
    stage_number(op)?;
    kernel(op, run, &[])
}

/// How the heads of a tensor lie; of a 3-D one the number of heads must be given.
pub(in crate::ops) fn heads(x: &GpuTensor, n_heads: usize) -> Result<Heads, OpError> {
    let layout = dense::layout(x.shape(), n_heads).ok_or_else(|| {
        OpError::shape(format!("{:?} can't be split into {n_heads} heads", x.shape()))
    })?;
    let (batch, heads, rows) = (layout.batch, layout.heads, layout.rows);
    Ok(Heads { batch, heads, rows, size: layout.dim, head_major: layout.head_major })
}

fn run(op: &OpNode, context: &CudaContext, inputs: CudaInputs<'_>) -> Outputs {
    let count = |name| usize::try_from(op.node.int(name, 0)).unwrap_or(0);
    let q = inputs.device(0)?;
    let of_q = heads(q, count("q_num_heads"))?;
    let needs_presents = op.n_outputs() > 1 || inputs.optional(4).is_some();
    let kv = |i: usize| -> Result<(GpuTensor, Heads), OpError> {
        let x = inputs.device(i)?;
        let layout = heads(x, count("kv_num_heads"))?;
        if !needs_presents {
            return Ok((x.clone(), layout));
        }
        let present = present(context, x, layout, inputs.optional(i + 3))?;
        let layout = heads(&present, 0)?;
        Ok((present, layout))
    };
    let ((k, of_k), (v, of_v)) = (kv(1)?, kv(2)?);
    let attended = Attended {
        q: (q, of_q),
        k: (&k, of_k),
        v: (&v, of_v),
        mask: inputs.optional(3),
        lengths: inputs.optional(6),
        n_past: inputs.optional(4).map_or(0, |past| past.shape()[2]),
    };
    let stage = if op.n_outputs() > 3 { Some(stage_number(op)?) } else { None };
    let (y, stage) = attended.run(op, context, stage)?;
    Ok([Some(y), Some(k), Some(v), stage].into_iter().flatten().take(op.n_outputs()).collect())
}

/// What attention runs over, keys and values of the past included.
pub(in crate::ops) struct Attended<'a> {
    pub q: (&'a GpuTensor, Heads),
    pub k: (&'a GpuTensor, Heads),
    pub v: (&'a GpuTensor, Heads),
    pub mask: Option<&'a GpuTensor>,
    pub lengths: Option<&'a GpuTensor>,
    pub n_past: usize,
}

impl Attended<'_> {
    /// The result, and the scores at a stage if they are wanted.
    pub fn run(
        &self,
        op: &OpNode,
        context: &CudaContext,
        stage: Option<i32>,
    ) -> Result<(GpuTensor, Option<GpuTensor>), OpError> {
        let ((q, of_q), (k, of_k), (v, of_v)) = (self.q, self.k, self.v);
        let of_y = Heads { size: of_v.size, ..of_q };
        let y = context.tensor(q.dtype(), shape(of_y))?;
        if let Some(dense) = self.dense(op, context).filter(|_| stage.is_none()) {
            dense.forward(context.gpu, y.ptr())?;
            return Ok((y, None));
        }
        let shape = [of_q.batch, of_q.heads, of_q.rows, of_k.rows];
        let shown = stage.map(|_| context.tensor(q.dtype(), shape.to_vec())).transpose()?;
        let mask = self.mask.map(|given| mask(context, given, shape)).transpose()?;
        let lengths = self.lengths.map(|n| cast(context, n, DataType::I64)).transpose()?;
        if lengths.as_ref().is_some_and(|lengths| lengths.n_elements() != of_q.batch) {
            return Err(OpError::shape("nonpad_kv_seqlen must have one length a sequence"));
        }
        let window = |name| i32::try_from(op.node.int(name, -1)).unwrap_or(-1);
        let scores = Scores {
            q: (q.ptr(), of_q),
            k: (k.ptr(), of_k),
            v: (v.ptr(), of_v),
            y: (y.ptr(), of_y),
            stage: shown.as_ref().map(GpuTensor::ptr).zip(stage),
            mask: mask.as_ref().map(|(_, mask)| *mask),
            lengths: lengths.as_ref().map(GpuTensor::ptr),
            n_past: self.n_past,
            is_causal: op.node.int("is_causal", 0) != 0,
            windows: [window("left_window_size"), window("right_window_size")],
            scale: dense::scale(op, of_q.size),
            softcap: op.node.float("softcap", 0.0),
        };
        if !self.by_products(context, &scores, shown.as_ref(), &y)? {
            scores.run(context.gpu, number(q.dtype())?)?;
        }
        Ok((y, shown))
    }

    /// Attention as learning takes it, whose products are in bfloat16: where that is allowed, for
    /// whole sequences of some length with no mask but the causal one.
    pub fn dense(&self, op: &OpNode, context: &CudaContext) -> Option<DenseAttention> {
        let ((q, of_q), (k, of_k), (v, of_v)) = (self.q, self.k, self.v);
        let has_window =
            ["left_window_size", "right_window_size"].iter().any(|name| op.node.int(name, -1) >= 0);
        let is_plain = self.mask.is_none()
            && self.lengths.is_none()
            && self.n_past == 0
            && op.node.float("softcap", 0.0) == 0.0
            && !has_window;
        let is_allowed = context.precision == ProductPrecision::BF16
            && q.dtype() == DataType::F32
            && of_q.rows >= WORTH_PRODUCTS;
        let dense = DenseAttention {
            q: (q.ptr(), of_q),
            k: (k.ptr(), of_k),
            v: (v.ptr(), of_v),
            is_causal: op.node.int("is_causal", 0) != 0,
            scale: dense::scale(op, of_q.size),
        };
        Some(dense).filter(|dense| is_plain && is_allowed && dense.fits())
    }

    /// Attends by products of whole matrices, where these are large and there is memory for all
    /// scores. The query heads that share a key head count as rows of one matrix.
    fn by_products(
        &self,
        context: &CudaContext,
        scores: &Scores,
        shown: Option<&GpuTensor>,
        y: &GpuTensor,
    ) -> Result<bool, OpError> {
        let ((q, of_q), (k, of_k), (v, of_v)) = (self.q, self.k, self.v);
        let fits = of_k.heads > 0
            && of_q.heads.is_multiple_of(of_k.heads)
            && (of_q.batch, of_q.size) == (of_k.batch, of_k.size)
            && (of_k.batch, of_k.heads, of_k.rows) == (of_v.batch, of_v.heads, of_v.rows);
        let n = of_q.batch * of_q.heads * of_q.rows * of_k.rows;
        if !fits || of_q.rows < WORTH_PRODUCTS || n > MOST_SCORES {
            return Ok(false);
        }
        let (batch, keys) = (of_q.batch * of_k.heads, of_k.rows);
        let shared = of_q.heads / of_k.heads * of_q.rows;
        let rows = |x: &GpuTensor, layout: Heads, rows: usize| {
            present(context, x, layout, None)?.reshaped(vec![batch, rows, layout.size])
        };
        let (q_rows, k_rows) = (rows(q, of_q, shared)?, rows(k, of_k, keys)?);
        let products = context.tensor(DataType::F32, vec![batch, shared, keys])?;
        let plan = Plan::new(&[batch, shared, of_q.size], &[batch, of_q.size, keys])?;
        let (left, right) = (plain(&q_rows), CudaFactor { transposed: true, ..plain(&k_rows) });
        if !by_cublas(context, &plan, scores.scale, (left, right), &products)? {
            return Ok(false);
        }
        let weights = match (shown, scores.stage) {
            (Some(shown), Some((_, SOFTMAX))) => shown.reshaped(vec![batch, shared, keys])?,
            _ => context.tensor(q.dtype(), vec![batch, shared, keys])?,
        };
        scores.weigh(context.gpu, number(q.dtype())?, products.ptr(), weights.ptr())?;
        let v_rows = rows(v, of_v, keys)?;
        let plan = Plan::new(&[batch, shared, keys], &[batch, keys, of_v.size])?;
        let mixed = multiply(context, &plan, 1.0, plain(&weights), plain(&v_rows), None)?;
        let of_y = Heads { size: of_v.size, ..of_q };
        let mixed = mixed.reshaped(vec![of_y.batch, of_y.heads, of_y.rows, of_y.size])?;
        let [of_batch, of_head, of_row] = of_y.steps();
        put(context, &mixed, y, 0, &[of_batch, of_head, of_row, 1])?;
        Ok(true)
    }
}

fn plain(tensor: &GpuTensor) -> CudaFactor<'_> {
    CudaFactor { tensor, transposed: false }
}

fn shape(heads: Heads) -> Vec<usize> {
    let Heads { batch, heads, rows, size, head_major } = heads;
    if head_major { vec![batch, heads, rows, size] } else { vec![batch, rows, heads * size] }
}

/// Past and new rows of every head, `[b, heads, total, d]`.
pub(in crate::ops) fn present(
    context: &CudaContext,
    x: &GpuTensor,
    new: Heads,
    past: Option<&GpuTensor>,
) -> Result<GpuTensor, OpError> {
    let Heads { batch, heads, rows, size, .. } = new;
    let n_past = match past.map(GpuTensor::shape) {
        None => 0,
        Some(&[b, h, n, d]) if (b, h, d) == (batch, heads, size) => n,
        Some(_) => return Err(OpError::shape("the past has other batches, heads or channels")),
    };
    let all = context.tensor(x.dtype(), vec![batch, heads, n_past + rows, size])?;
    let to = steps(all.shape());
    if let Some(past) = past {
        put(context, past, &all, 0, &to)?;
    }
    match new.head_major {
        true => put(context, x, &all, n_past * size, &to)?,
        // [b, s, heads, d] in memory.
        false => {
            let by_row = x.reshaped(vec![batch, rows, heads, size])?;
            put(context, &by_row, &all, n_past * size, &[to[0], to[2], to[1], to[3]])?;
        }
    }
    Ok(all)
}

/// The mask for scores of a shape; the tensor is to be kept until the kernel was started.
fn mask(
    context: &CudaContext,
    given: &GpuTensor,
    scores: [usize; 4],
) -> Result<(GpuTensor, Mask), OpError> {
    let Place { steps, columns } = Place::new(given.shape(), scores)?;
    let is_bool = given.dtype() == DataType::Bool;
    let stored = if is_bool || given.dtype().is_float() {
        given.clone()
    } else {
        cast(context, given, crate::cuda_kernel::dtype_of(context.element))?
    };
    let steps = steps.map(|step| step as i64);
    let mask = Mask { at: stored.ptr(), is_bool, steps, columns };
    Ok((stored, mask))
}
