//! The gradient of layer normalisation: planish's `LayerNormalizationGrad`.
//!
//! With r = 1 / √(variance + ε), x̂ = (x − mean)·r and g = dY·scale:
//! dX = r·(g − mean(g) − x̂·mean(g·x̂)), and over the rows dscale sums dY·x̂, dbias sums dY.

use planish_cpu::{Isa, layer_norm_grad};
use planish_ir::{Function, Node, Tensor, ValueId};

use super::{EPSILON, normalise};
use crate::ops::support::body::Body;
use crate::ops::support::{fast, norm_grad, rows};
use crate::{CpuContext, DOMAIN, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

pub(super) const OP: OpDef = OpDef::new("LayerNormalizationGrad", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::cuda::grad)
    .with_function(function);

/// The rule of `LayerNormalization`, as long as nothing depends on its statistics.
pub(super) fn rule(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = norm_grad::of_rows(node)? else { return Ok(node.nothing()) };
    let inputs = [dy, node.input(0)?, node.input(1)?].map(Some).to_vec();
    let grad = Node::new("LayerNormalizationGrad", inputs)
        .with_domain(DOMAIN)
        .with("axis", node.op.node.int("axis", -1))
        .with("epsilon", node.op.node.float("epsilon", EPSILON));
    let n = 1 + (0..3).rev().find(|i| node.wants(*i)).unwrap_or(0);
    let outputs = scope.node_n("grad_layer_norm", grad, n)?;
    let mut gradients = node.nothing();
    for (gradient, output) in gradients.iter_mut().zip(outputs) {
        *gradient = Some(output);
    }
    Ok(gradients)
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    norm_grad::infer(op, inputs, 2)
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let inputs = norm_grad::Inputs::read(op, inputs)?;
    let (scale, n) = (&inputs.scale.data, inputs.scale.data.len());
    let epsilon = op.node.float("epsilon", EPSILON);
    let (mut dx, mut dscale, mut dbias) = (Vec::new(), vec![0.0f64; n], vec![0.0f64; n]);
    for (dy, x) in inputs.rows() {
        let mut normal = x.to_vec();
        let (_, r) = normalise(&mut normal, epsilon);
        let g: Vec<f64> =
            dy.iter().zip(scale).map(|(a, b)| f64::from(*a) * f64::from(*b)).collect();
        let mean = g.iter().sum::<f64>() / n as f64;
        let along = g.iter().zip(&normal).map(|(g, x)| g * f64::from(*x)).sum::<f64>() / n as f64;
        for (j, (g, x)) in g.iter().zip(&normal).enumerate() {
            let (x, dy) = (f64::from(*x), f64::from(dy[j]));
            dx.push((f64::from(r) * (g - mean - x * along)) as f32);
            dscale[j] += dy * x;
            dbias[j] += dy;
        }
    }
    let sum = |sums: Vec<f64>| {
        Tensor::from_vec(&inputs.scale.shape, sums.into_iter().map(|s| s as f32).collect())
    };
    let outputs = [Tensor::from_vec(&inputs.x.shape, dx), sum(dscale), sum(dbias)];
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
    let (n, epsilon) = (fast.scale.len(), op.node.float("epsilon", EPSILON));
    let mut sums = vec![0.0; 2 * n];
    let dx = rows::f32_output(context, fast.x_shape.to_vec(), |dx| {
        let (pool, isa) = (context.pool, Isa::best());
        layer_norm_grad(pool, isa, &fast.dy, &fast.x, &fast.scale, epsilon, dx, &mut sums);
    })?;
    let dbias = Tensor::from_vec(fast.scale_shape, sums.split_off(n));
    let outputs = [dx, Tensor::from_vec(fast.scale_shape, sums), dbias];
    Ok(Some(outputs.into_iter().take(op.n_outputs()).collect()))
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("LayerNormalizationGrad", &["dY", "X", "scale"]);
    let (dy, x, scale) = (inputs[0], inputs[1], inputs[2]);
    let axes = norm_grad::axes(&mut body, x);
    let mean = body.op("mean", "ReduceMean", &[x, axes]);
    let centred = body.op("centred", "Sub", &[x, mean]);
    let r = norm_grad::inverse_rms(&mut body, centred, axes);
    let normal = body.op("normal", "Mul", &[centred, r]);
    let g = body.op("g", "Mul", &[dy, scale]);
    let mean = body.op("mean_g", "ReduceMean", &[g, axes]);
    let along = body.op("g_normal", "Mul", &[g, normal]);
    let along = body.op("mean_along", "ReduceMean", &[along, axes]);
    let along = body.op("along", "Mul", &[normal, along]);
    let across = body.op("less_mean", "Sub", &[g, mean]);
    let across = body.op("across", "Sub", &[across, along]);
    let dx = body.op("dx", "Mul", &[across, r]);
    let terms = body.op("terms", "Mul", &[dy, normal]);
    let dscale = norm_grad::sum_rows(&mut body, "sum", terms, scale);
    let dbias = norm_grad::sum_rows(&mut body, "sum_dy", dy, scale);
    body.finish(&[(dx, "dX"), (dscale, "dscale"), (dbias, "dbias")])
}
