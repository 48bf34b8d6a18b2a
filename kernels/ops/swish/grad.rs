//! The gradient of `Swish`: planish's `SwishGrad`, dX = dY·s·(1 + α·x·(1 − s)) with
//! s = sigmoid(α·x).

use planish_cpu::{Isa, silu_grad};
use planish_ir::{Function, Node, Tensor, ValueId};

use crate::ops::gelu::grad::{infer, map_slopes, silu_slope};
use crate::ops::support::body::Body;
use crate::ops::support::{fast, rows};
use crate::{CpuContext, DOMAIN, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

pub(super) const OP: OpDef = OpDef::new("SwishGrad", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(crate::ops::gelu::cuda::grad)
    .with_function(function);

/// The rule of `Swish`.
pub(super) fn rule(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    emit(scope, node, node.op.node.float("alpha", 1.0))
}

/// Emits the gradient of x·sigmoid(alpha·x).
pub(in crate::ops) fn emit(
    scope: &mut GradScope,
    node: &GradNode,
    alpha: f32,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let grad = Node::new("SwishGrad", vec![Some(dy), Some(node.input(0)?)]);
    let grad = grad.with_domain(DOMAIN).with("alpha", alpha);
    Ok(vec![Some(scope.node("grad_swish", grad)?)])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let alpha = f64::from(op.node.float("alpha", 1.0));
    map_slopes(inputs, |x| silu_slope(x, alpha))
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let [Some(dy), Some(x)] = [0, 1].map(|i| fast::f32s(inputs, i)) else { return Ok(None) };
    let [of_dy, shape] = [0, 1].map(|i| fast::input(inputs, i).map_or(&[][..], Tensor::shape));
    if of_dy != shape {
        return Ok(None);
    }
    let alpha = op.node.float("alpha", 1.0);
    let dx = rows::f32_output(context, shape.to_vec(), |dx| {
        silu_grad(context.pool, Isa::best(), &dy, &x, alpha, dx);
    })?;
    Ok(Some(vec![dx]))
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("SwishGrad", &["dY", "X"]);
    let (dy, x) = (inputs[0], inputs[1]);
    let alpha = body.float_attribute("alpha", 1.0);
    let inner = body.op("inner", "Mul", &[alpha, x]);
    let s = body.op("s", "Sigmoid", &[inner]);
    let one = body.float("one", 1.0);
    let rest = body.op("rest", "Sub", &[one, s]);
    let part = body.op("part", "Mul", &[inner, rest]);
    let part = body.op("part_one", "Add", &[part, one]);
    let slope = body.op("slope", "Mul", &[s, part]);
    let dx = body.op("dx", "Mul", &[dy, slope]);
    body.finish(&[(dx, "dX")])
}
