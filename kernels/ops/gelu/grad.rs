//! The gradients of the GELU operators: planish's `GeluGrad`, dX = dY·Φ'(x) with the attribute
//! `approximate` of ONNX's Gelu: "none", Φ(x) + x·φ(x) with the normal distribution and its
//! density; or "tanh", the derivative of that form.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use planish_cpu::{Isa, gelu_erf_grad, gelu_tanh_grad};
use planish_ir::{Node, Tensor, ValueId};

use super::{QUICK_ALPHA, erf, sigmoid};
use crate::op::required;
use crate::ops::support::{Dense, facts, fast, rows};
use crate::ops::swish::grad::emit as emit_swish;
use crate::{CpuContext, DOMAIN, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

pub(super) const OP: OpDef = OpDef::new("GeluGrad", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::cuda::grad);

/// The rule of `Gelu`.
pub(super) fn gelu(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let form = node.op.node.str("approximate", "none");
    Ok(vec![Some(emit(scope, dy, node.input(0)?, form)?)])
}

/// The rule of `FastGelu`: the tanh form of x + bias.
pub(super) fn fast_gelu(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let x = node.input(0)?;
    let Some(bias) = node.op.node.input(1) else {
        return Ok(vec![Some(emit(scope, dy, x, "tanh")?)]);
    };
    let sum = scope.op("Add", &[x, bias])?;
    let dx = emit(scope, dy, sum, "tanh")?;
    let dbias = if node.wants(1) { Some(scope.reduce_to(dx, bias)?) } else { None };
    Ok(vec![Some(dx), dbias])
}

/// The rule of `QuickGelu`, which is Swish with a factor.
pub(super) fn quick_gelu(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    emit_swish(scope, node, node.op.node.float("alpha", QUICK_ALPHA))
}

fn emit(scope: &mut GradScope, dy: ValueId, x: ValueId, form: &str) -> Result<ValueId, OpError> {
    let grad = Node::new("GeluGrad", vec![Some(dy), Some(x)]).with_domain(DOMAIN);
    scope.node("grad_gelu", grad.with("approximate", form))
}

/// One output like X, input 1; dY is of its shape.
pub(in crate::ops) fn infer(_: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (dy, x) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("dY", x.dim(-1), dy.dim(-1))?;
    Ok(vec![facts::like(x)])
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    match op.node.str("approximate", "none") {
        "none" => map_slopes(inputs, exact_slope),
        "tanh" => map_slopes(inputs, tanh_slope),
        other => Err(OpError::unsupported(format!("approximate = \"{other}\" is unknown"))),
    }
}

/// dY times `slope` of every element of X.
pub(in crate::ops) fn map_slopes(
    inputs: &[Option<Tensor>],
    slope: impl Fn(f64) -> f64,
) -> Result<Vec<Tensor>, OpError> {
    let (mut dx, x) = (Dense::read(required(inputs, 0)?)?, required(inputs, 1)?);
    if dx.shape != x.shape() {
        return Err(OpError::shape(format!("dY is {:?}, X {:?}", dx.shape, x.shape())));
    }
    for (dx, x) in dx.data.iter_mut().zip(x.to_f32_vec()?) {
        *dx = (f64::from(*dx) * slope(f64::from(x))) as f32;
    }
    Ok(vec![dx.into_tensor(x.dtype())?])
}

/// The derivative of x·sigmoid(alpha·x).
pub(in crate::ops) fn silu_slope(x: f64, alpha: f64) -> f64 {
    sigmoid(alpha * x) * (1.0 + alpha * x * sigmoid(-alpha * x))
}

fn exact_slope(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// Of 0.5·x·(1 + tanh u): 0.5·(1 + tanh u) + 0.5·x·(1 − tanh² u)·u'.
fn tanh_slope(x: f64) -> f64 {
    let root = (2.0 / PI).sqrt();
    let tanh = (root * (x + 0.044715 * x * x * x)).tanh();
    let inner = root * (1.0 + 3.0 * 0.044715 * x * x);
    0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner
}

fn cpu(op: &OpNode, _: &[Option<Tensor>]) -> Result<Option<Box<dyn Kernel>>, OpError> {
    fast::kernel(op, run, eval)
}

fn run(
    op: &OpNode,
    context: &CpuContext,
    inputs: &[Option<&Tensor>],
) -> Result<Option<Vec<Tensor>>, OpError> {
    let grad = match op.node.str("approximate", "none") {
        "none" => gelu_erf_grad,
        "tanh" => gelu_tanh_grad,
        _ => return Ok(None),
    };
    let [Some(dy), Some(x)] = [0, 1].map(|i| fast::f32s(inputs, i)) else { return Ok(None) };
    let [of_dy, shape] = [0, 1].map(|i| fast::input(inputs, i).map_or(&[][..], Tensor::shape));
    if of_dy != shape {
        return Ok(None);
    }
    let dx = rows::f32_output(context, shape.to_vec(), |dx| {
        grad(context.pool, Isa::best(), &dy, &x, dx);
    })?;
    Ok(Some(vec![dx]))
}
