//! The fast form of `AttentionGrad`, for f32.

use planish_cpu::{AttentionGradients, AttentionInputs, Isa, attention_backward};
use planish_ir::Tensor;

use crate::ops::attention::dense::{self, Hiding};
use crate::ops::support::fast;
use crate::{CpuContext, Kernel, OpError, OpNode};

pub(super) fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, super::eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let [Some(dy), Some(q), Some(k), Some(v)] = [0, 1, 2, 3].map(|i| fast::f32s(inputs, i)) else {
        return Ok(None);
    };
    let shape = |i: usize| fast::input(inputs, i).map_or(&[][..], Tensor::shape);
    let count = |name| usize::try_from(op.node.int(name, 0)).unwrap_or(0);
    let (q_heads, kv_heads) = (count("q_num_heads"), count("kv_num_heads"));
    let layouts = [(1, q_heads), (2, kv_heads), (3, kv_heads)];
    let [Some(of_q), Some(of_k), Some(of_v)] = layouts.map(|(i, n)| dense::layout(shape(i), n))
    else {
        return Ok(None);
    };
    let of_y = dense::result(of_q, of_k, of_v).filter(|y| dense::shape(y) == shape(0));
    let Some(of_y) = of_y else { return Ok(None) };
    let scores = [of_q.batch, of_q.heads, of_q.rows, of_k.rows];
    let hiding = Hiding::new(op, fast::input(inputs, 4), scores, 0)?;
    let spec = hiding.attention(op, [of_q, of_k, of_v, of_y]);
    let mut buffers = [context.f32s(q.len())?, context.f32s(k.len())?, context.f32s(v.len())?];
    let [dq, dk, dv] = &mut buffers;
    let out = AttentionGradients { dq: dq.as_mut(), dk: dk.as_mut(), dv: dv.as_mut() };
    let x = AttentionInputs { q: &q, k: &k, v: &v };
    attention_backward(context.pool, Isa::best(), &spec, x, &dy, out);
    let outputs = buffers.into_iter().zip(1..).take(op.n_outputs());
    let outputs = outputs.map(|(buffer, i)| context.f32_tensor(buffer, shape(i).to_vec()));
    outputs.collect::<Result<Vec<_>, _>>().map(Some)
}
