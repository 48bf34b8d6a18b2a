//! The gradient of RMS normalisation: planish's `RMSNormalizationGrad`.
//!
//! With r = 1 / √(mean(x²) + ε), x̂ = x·r and g = dY·scale: dX = r·(g − x̂·mean(g·x̂)), and dscale
//! is the sum of dY·x̂ over the rows.

use planish_cpu::{Isa, rms_norm_grad};
use planish_ir::{Function, Node, Tensor, ValueId};

use super::{EPSILON, inverse_rms};
use crate::ops::support::body::Body;
use crate::ops::support::{fast, norm_grad, rows};
use crate::{CpuContext, DOMAIN, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

pub(super) const OP: OpDef = OpDef::new("RMSNormalizationGrad", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::cuda::grad)
    .with_function(function);

/// The rule of `RMSNormalization`, and of `SimplifiedLayerNormalization` as long as nothing
/// depends on its statistics.
pub(in crate::ops) fn rule(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = norm_grad::of_rows(node)? else { return Ok(node.nothing()) };
    let inputs = [dy, node.input(0)?, node.input(1)?].map(Some).to_vec();
    let grad = Node::new("RMSNormalizationGrad", inputs)
        .with_domain(DOMAIN)
        .with("axis", node.op.node.int("axis", -1))
        .with("epsilon", node.op.node.float("epsilon", EPSILON));
    let n = if node.wants(1) { 2 } else { 1 };
    let outputs = scope.node_n("grad_rms_norm", grad, n)?;
    Ok(vec![outputs.first().copied(), outputs.get(1).copied()])
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    norm_grad::infer(op, inputs, 1)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let inputs = norm_grad::Inputs::read(op, inputs)?;
    let (scale, n) = (&inputs.scale.data, inputs.scale.data.len());
    let epsilon = op.node.float("epsilon", EPSILON);
    let (mut dx, mut dscale) = (Vec::new(), vec![0.0f64; n]);
    for (dy, x) in inputs.rows() {
        let r = f64::from(inverse_rms(x, epsilon));
        let normal: Vec<f64> = x.iter().map(|x| f64::from(*x) * r).collect();
        let g: Vec<f64> =
            dy.iter().zip(scale).map(|(a, b)| f64::from(*a) * f64::from(*b)).collect();
        let mean = g.iter().zip(&normal).map(|(g, x)| g * x).sum::<f64>() / n as f64;
        dx.extend(g.iter().zip(&normal).map(|(g, x)| (r * (g - x * mean)) as f32));
        for ((sum, dy), x) in dscale.iter_mut().zip(dy).zip(&normal) {
            *sum += f64::from(*dy) * x;
        }
    }
    let dscale = dscale.into_iter().map(|sum| sum as f32).collect();
    let outputs =
        [Tensor::from_vec(&inputs.x.shape, dx), Tensor::from_vec(&inputs.scale.shape, dscale)];
    Ok(outputs.into_iter().take(op.n_outputs()).collect())
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let Some(fast) = norm_grad::Fast::read(op, inputs)? else { return Ok(None) };
    let epsilon = op.node.float("epsilon", EPSILON);
    let mut dscale = context.f32s(fast.scale.len())?;
    let dx = rows::f32_output(context, fast.x_shape.to_vec(), |dx| {
        let (pool, isa) = (context.pool, Isa::best());
        let (dy, x, scale) = (&fast.dy, &fast.x, &fast.scale);
        rms_norm_grad(pool, isa, dy, x, scale, epsilon, dx, dscale.as_mut());
    })?;
    let dscale = context.f32_tensor(dscale, fast.scale_shape.to_vec())?;
    Ok(Some([dx, dscale].into_iter().take(op.n_outputs()).collect()))
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("RMSNormalizationGrad", &["dY", "X", "scale"]);
    let (dy, x, scale) = (inputs[0], inputs[1], inputs[2]);
    let axes = norm_grad::axes(&mut body, x);
    let r = norm_grad::inverse_rms(&mut body, x, axes);
    let normal = body.op("normal", "Mul", &[x, r]);
    let g = body.op("g", "Mul", &[dy, scale]);
    let along = body.op("g_normal", "Mul", &[g, normal]);
    let mean = body.op("mean", "ReduceMean", &[along, axes]);
    let along = body.op("along", "Mul", &[normal, mean]);
    let across = body.op("across", "Sub", &[g, along]);
    let dx = body.op("dx", "Mul", &[across, r]);
    let terms = body.op("terms", "Mul", &[dy, normal]);
    let dscale = norm_grad::sum_rows(&mut body, "sum", terms, scale);
    body.finish(&[(dx, "dX"), (dscale, "dscale")])
}
