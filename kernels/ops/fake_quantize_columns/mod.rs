//! planish's `FakeQuantizeColumns` and `FakeQuantizeColumnsGrad`: rounding a weight to a few bits
//! and reading it back, with the clips as inputs, for learning; and its straight-through gradient.
//!
//! W `[K, N]`, clip_max, clip_min → Y `[K, N]`; dY and these → dW, dclip_max, dclip_min. Attributes
//! `bits`, 2 to 8, and `block_size`, the rows of a column that share a scale: 0 (all of them; the
//! clips are `[N]`) or a divisor of K (they are `[K / block_size, N]`). Each group is quantised,
//! and its gradients found, as a row of `FakeQuantizeRows` with clips of its own.

use planish_ir::{Function, Node, Tensor, ValueId};

use super::support::body::Body;
use super::support::quant::Quantiser;
use super::support::through_body::{self, Clips};
use super::support::{Dense, facts, fake_quantize, through};
use crate::grad::{GradNode, GradScope};
use crate::op::required;
use crate::{DOMAIN, Fact, OpDef, OpError, OpNode};

mod cpu;
mod cuda;
mod groups;
#[cfg(test)]
mod tests;

use groups::{Groups, block_size};

pub(super) static OPS: &[OpDef] = &[
    OpDef::new("FakeQuantizeColumns", infer, eval)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu)
        .with_cuda(cuda::cuda)
        .with_grad(grad)
        .with_function(function),
    OpDef::new("FakeQuantizeColumnsGrad", infer_grad, eval_grad)
        .in_domain(DOMAIN)
        .with_cpu(cpu::cpu_grad)
        .with_cuda(cuda::cuda)
        .with_function(function_grad),
];

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let w = facts::required(inputs, 0)?;
    groups::check_facts(op, w, [facts::required(inputs, 1)?, facts::required(inputs, 2)?])?;
    fake_quantize::infer(op, inputs)
}

fn infer_grad(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let w = facts::required(inputs, 1)?;
    groups::check_facts(op, w, [facts::required(inputs, 2)?, facts::required(inputs, 3)?])?;
    fake_quantize::infer_grad(op, inputs)
}

fn grad(scope: &mut GradScope, node: &GradNode) -> Result<Vec<Option<ValueId>>, OpError> {
    fake_quantize::grad(scope, node, "FakeQuantizeColumnsGrad")
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (w, clip_max, clip_min) =
        (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
    let groups = Groups::new(op, w, [clip_max, clip_min])?;
    let (mut y, clips) = (Dense::read(w)?, [clip_max.to_f32_vec()?, clip_min.to_f32_vec()?]);
    for g in 0..groups.len() {
        let quantiser = quantiser(op, &clips, g)?;
        let (codes, scale) = quantiser.symmetric(&groups.gather(&y.data, g));
        for (at, code) in groups.elements(g).zip(codes) {
            y.data[at] = f32::from(code) * scale;
        }
    }
    Ok(vec![y.into_tensor(w.dtype())?])
}

/// The quantiser of group `g`, whose clips are those at `g` of the largest and the smallest value.
fn quantiser(op: &OpNode, clips: &[Vec<f32>; 2], g: usize) -> Result<Quantiser, OpError> {
    Ok(Quantiser { clip_max: clips[0][g], clip_min: clips[1][g], ..Quantiser::read(op)? })
}

fn eval_grad(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (dy, w) = (required(inputs, 0)?, required(inputs, 1)?);
    let (clip_max, clip_min) = (required(inputs, 2)?, required(inputs, 3)?);
    fake_quantize::check_gradient(dy, w)?;
    let groups = Groups::new(op, w, [clip_max, clip_min])?;
    let clips = [clip_max.to_f32_vec()?, clip_min.to_f32_vec()?];
    let (dy, values) = (Dense::read(dy)?, Dense::read(w)?);
    let mut dw = Dense::zeros(w.shape());
    let mut of_clips = [Vec::new(), Vec::new()];
    for g in 0..groups.len() {
        let (dy, x) = (groups.gather(&dy.data, g), groups.gather(&values.data, g));
        let column = through::symmetric(&quantiser(op, &clips, g)?, &dy, &x);
        groups.elements(g).zip(column.dx).for_each(|(at, dx)| dw.data[at] = dx);
        of_clips[0].push(column.clip_max as f32);
        of_clips[1].push(column.clip_min as f32);
    }
    let [of_max, of_min] = of_clips.map(|v| Tensor::from_vec(clip_max.shape(), v));
    Ok(vec![dw.into_tensor(w.dtype())?, of_max, of_min])
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("FakeQuantizeColumns", &["W", "clip_max", "clip_min"]);
    let columns = Columns::new(&mut body, inputs[0]);
    let w = columns.split(&mut body, inputs[0]);
    let clips = columns.clips(&mut body, inputs[1], inputs[2]);
    let y = through_body::symmetric(&mut body, w, clips);
    let y = columns.join(&mut body, y, inputs[0]);
    body.finish(&[(y, "Y")])
}

fn function_grad() -> Function {
    let names = ["dY", "W", "clip_max", "clip_min"];
    let (mut body, inputs) = Body::new("FakeQuantizeColumnsGrad", &names);
    let columns = Columns::new(&mut body, inputs[1]);
    let (dy, w) = (columns.split(&mut body, inputs[0]), columns.split(&mut body, inputs[1]));
    let clips = columns.clips(&mut body, inputs[2], inputs[3]);
    let groups = through_body::symmetric_grad(&mut body, dy, w, clips);
    let dw = columns.join(&mut body, groups.x, inputs[1]);
    let shape = body.shape("clip_shape", inputs[2], 0, None);
    let of_max = body.reshape("of_max_shaped", groups.clip_max, &[shape]);
    let of_min = body.reshape("of_min_shaped", groups.clip_min, &[shape]);
    body.finish(&[(dw, "dW"), (of_max, "dclip_max"), (of_min, "dclip_min")])
}

/// Sizes of the groups of columns, in a function body.
struct Columns {
    any: ValueId,
    block: ValueId,
    n: ValueId,
}

impl Columns {
    fn new(body: &mut Body, w: ValueId) -> Self {
        let any = body.ints("any", &[-1]);
        let (k, n) = (body.shape("k", w, 0, Some(1)), body.shape("n", w, 1, None));
        let block = body.int_attribute_or("block_size", 0);
        let none = body.int("none", 0);
        let whole = body.op("whole_column", "Equal", &[block, none]);
        let block = body.op("block", "Where", &[whole, k, block]);
        Self { any, block, n }
    }

    /// A matrix `[K, N]` as `[K / block, N, block]`.
    fn split(&self, body: &mut Body, w: ValueId) -> ValueId {
        let blocks = body.reshape("blocks", w, &[self.any, self.block, self.n]);
        transposed(body, "groups", blocks)
    }

    /// The reverse of [`Columns::split`], in the shape of `like`.
    fn join(&self, body: &mut Body, groups: ValueId, like: ValueId) -> ValueId {
        let blocks = transposed(body, "blocks_again", groups);
        let whole = body.shape("whole", like, 0, None);
        body.reshape("joined", blocks, &[whole])
    }

    /// Clips as `[K / block, N, 1]`.
    fn clips(&self, body: &mut Body, max: ValueId, min: ValueId) -> Clips {
        let one = body.ints("one_clip", &[1]);
        let mut shaped = |hint, clip| body.reshape(hint, clip, &[self.any, self.n, one]);
        Clips { max: shaped("clip_max_by_group", max), min: shaped("clip_min_by_group", min) }
    }
}

fn transposed(body: &mut Body, hint: &str, x: ValueId) -> ValueId {
    body.node(hint, Node::new("Transpose", vec![Some(x)]).with("perm", vec![0i64, 2, 1]))
}
