//! planish's `FakeQuantizeHeads` and `FakeQuantizeHeadsGrad`: `QuantizeDequantizeHeads` with its
//! clips as inputs, for learning; and its straight-through gradient.
//!
//! X `[.., heads · d]`, clip_max `[1]`, clip_min `[1]` → Y of the shape of X; dY and these → dX,
//! dclip_max, dclip_min. Attributes `head_size` = d and `bits`, 2 to 8. With q = 2^bits − 1,
//! lo = clip_min · min, hi = clip_max · max, scale = (hi − lo) / q, t = X / scale and
//! u = −lo / scale, of which the zero point is the rounded value:
//! - dX = dY where round(t) + zero is within 0..q, 0 elsewhere;
//! - dscale = Σ dY · (round(t) − t) over the former, where the zero point cancels, and
//!   Σ dY · (code − zero + u) over the latter;
//! - dhi = dscale / q, 0 where the floor decides the scale; dlo = Σ dY over what is clipped, which
//!   moves with the zero point, less dhi;
//! - each goes on times the extreme to its clip, times the clip to the first such element.

use planish_ir::{Dim, Function, Tensor, ValueId};

use super::quantize_dequantize_heads::{AsymmetricGrid, by_head, head_size};
use super::support::body::{self, Body};
use super::support::through_body::{self, Clips};
use super::support::{Dense, facts, fake_quantize, through};
use super::transform_heads::n_heads;
use crate::grad::{GradNode, GradScope};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("FakeQuantizeHeads", infer, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad)
        .with_function(function),
    OpDef::new("FakeQuantizeHeadsGrad", infer_grad, eval_grad)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu_grad)
        .with_cuda(cuda::cuda)
        .with_function(function_grad),
];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    check_heads(op, facts::required(inputs, 0)?)?;
    fake_quantize::infer(op, inputs)
}

fn infer_grad(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    check_heads(op, facts::required(inputs, 1)?)?;
    fake_quantize::infer_grad(op, inputs)
}

fn check_heads(op: &OpNode, x: &Fact) -> Result<(), OpError> {
    let size = head_size(op)?;
    x.dim(-1).and_then(Dim::as_usize).map_or(Ok(0), |width| n_heads(width, size))?;
    Ok(())
}

fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    fake_quantize::grad(scope, node, "FakeQuantizeHeadsGrad")
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let x = required(inputs, 0)?;
    let quantiser = fake_quantize::quantiser(op, required(inputs, 1)?, required(inputs, 2)?)?;
    let (size, mut y) = (head_size(op)?, Dense::read(x)?);
    n_heads(y.last(), size)?;
    y.data.chunks_exact_mut(size).for_each(|head| quantiser.round_trip(head));
    Ok(vec![y.into_tensor(x.dtype())?])
}

fn eval_grad(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (dy, x) = (required(inputs, 0)?, required(inputs, 1)?);
    let (clip_max, clip_min) = (required(inputs, 2)?, required(inputs, 3)?);
    fake_quantize::check_gradient(dy, x)?;
    let quantiser = fake_quantize::quantiser(op, clip_max, clip_min)?;
    let (size, dy, values) = (head_size(op)?, Dense::read(dy)?, Dense::read(x)?);
    n_heads(values.last(), size)?;
    let (mut dx, mut of_max, mut of_min) = (Vec::with_capacity(values.data.len()), 0.0, 0.0);
    for (dy, x) in dy.data.chunks_exact(size).zip(values.data.chunks_exact(size)) {
        let head = through::asymmetric(&quantiser, dy, x);
        dx.extend(head.dx);
        (of_max, of_min) = (of_max + head.clip_max, of_min + head.clip_min);
    }
    let single = |of_clip: f64, clip: &Tensor| Tensor::from_vec(clip.shape(), vec![of_clip as f32]);
    let dx = Tensor::from_vec(x.shape(), dx);
    Ok(vec![dx, single(of_max, clip_max), single(of_min, clip_min)])
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("FakeQuantizeHeads", &["X", "clip_max", "clip_min"]);
    let size = body.int_attribute("head_size");
    let rows = by_head(&mut body, inputs[0], size);
    let qmax = body::largest_code(&mut body, false);
    let range = body::extremes(&mut body, rows);
    let range = body::clipped(&mut body, range, (inputs[2], inputs[1]));
    let grid = AsymmetricGrid::new(&mut body, range, qmax);
    let y = grid.round_trip(&mut body, rows);
    let whole = body.shape("whole", inputs[0], 0, None);
    let y = body.reshape("shaped", y, &[whole]);
    body.finish(&[(y, "Y")])
}

fn function_grad() -> Function {
    let names = ["dY", "X", "clip_max", "clip_min"];
    let (mut body, inputs) = Body::new("FakeQuantizeHeadsGrad", &names);
    let size = body.int_attribute("head_size");
    let (dy, x) = (by_head(&mut body, inputs[0], size), by_head(&mut body, inputs[1], size));
    let clips = Clips { max: inputs[2], min: inputs[3] };
    let heads = through_body::asymmetric_grad(&mut body, dy, x, clips);
    let whole = body.shape("whole", inputs[1], 0, None);
    let dx = body.reshape("shaped", heads.x, &[whole]);
    let of_max = through_body::sum_like(&mut body, heads.clip_max, clips.max);
    let of_min = through_body::sum_like(&mut body, heads.clip_min, clips.min);
    body.finish(&[(dx, "dX"), (of_max, "dclip_max"), (of_min, "dclip_min")])
}
