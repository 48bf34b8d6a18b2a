//! planish's `FakeQuantizeRows` and `FakeQuantizeRowsGrad`: `DynamicQuantize` with its clips as
//! inputs, the codes times the scale, for learning; and its straight-through gradient.
//!
//! X `[.., n]`, clip_max `[1]`, clip_min `[1]` → Y `[.., n]`; dY and these → dX, dclip_max,
//! dclip_min. Attribute `bits`, 2 to 8. With q = 2^(bits−1) − 1 and t = X / scale:
//! - dX = dY where round(t) is within −q − 1..q, 0 elsewhere;
//! - dscale = Σ dY · (code − t) over the former and Σ dY · code over the latter;
//! - dscale / q goes to the extreme that decides the scale (the largest where both do; none where
//!   the floor does): times the extreme to its clip, times the clip to the first such element.

use planish_ir::{Function, Tensor, ValueId};

use super::support::body::Body;
use super::support::through_body::{self, Clips};
use super::support::{Dense, fake_quantize, through};
use crate::grad::{GradNode, GradScope};
use crate::op::required;
use crate::{DOMAIN, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("FakeQuantizeRows", fake_quantize::infer, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad)
        .with_function(function),
    OpDef::new("FakeQuantizeRowsGrad", fake_quantize::infer_grad, eval_grad)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu_grad)
        .with_cuda(cuda::cuda)
        .with_function(function_grad),
];

fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    fake_quantize::grad(scope, node, "FakeQuantizeRowsGrad")
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let quantiser = fake_quantize::quantiser(op, required(inputs, 1)?, required(inputs, 2)?)?;
    let mut y = Dense::read(x)?;
    let n = y.last().max(1);
    for row in y.data.chunks_exact_mut(n) {
        let (codes, scale) = quantiser.symmetric(row);
        row.iter_mut().zip(codes).for_each(|(y, code)| *y = f32::from(code) * scale);
    }
    Ok(vec![y.into_tensor(x.dtype())?])
}

fn eval_grad(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (dy, x) = (required(inputs, 0)?, required(inputs, 1)?);
    let (clip_max, clip_min) = (required(inputs, 2)?, required(inputs, 3)?);
    fake_quantize::check_gradient(dy, x)?;
    let quantiser = fake_quantize::quantiser(op, clip_max, clip_min)?;
    let (dy, rows) = (Dense::read(dy)?, Dense::read(x)?);
    let (mut dx, mut of_max, mut of_min) = (Vec::with_capacity(rows.data.len()), 0.0, 0.0);
    for (dy, x) in dy.rows().zip(rows.rows()) {
        let row = through::symmetric(&quantiser, dy, x);
        dx.extend(row.dx);
        (of_max, of_min) = (of_max + row.clip_max, of_min + row.clip_min);
    }
    let single = |of_clip: f64, clip: &Tensor| Tensor::from_vec(clip.shape(), vec![of_clip as f32]);
    let dx = Tensor::from_vec(x.shape(), dx);
    Ok(vec![dx, single(of_max, clip_max), single(of_min, clip_min)])
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("FakeQuantizeRows", &["X", "clip_max", "clip_min"]);
    let clips = Clips { max: inputs[1], min: inputs[2] };
    let y = through_body::symmetric(&mut body, inputs[0], clips);
    body.finish(&[(y, "Y")])
}

fn function_grad() -> Function {
    let names = ["dY", "X", "clip_max", "clip_min"];
    let (mut body, inputs) = Body::new("FakeQuantizeRowsGrad", &names);
    let clips = Clips { max: inputs[2], min: inputs[3] };
    let rows = through_body::symmetric_grad(&mut body, inputs[0], inputs[1], clips);
    let of_max = through_body::sum_like(&mut body, rows.clip_max, clips.max);
    let of_min = through_body::sum_like(&mut body, rows.clip_min, clips.min);
    body.finish(&[(rows.x, "dX"), (of_max, "dclip_max"), (of_min, "dclip_min")])
}
