//! The gradient of SwiGLU: planish's `SwiGLUGrad`.
//!
//! With s = sigmoid(gate): dgate = dY·up·s·(1 + gate·(1 − s)) and dup = dY·gate·s.

use planish_cpu::{Isa, silu_mul_grad};
use planish_ir::{Function, Node, Tensor, ValueId};

use crate::op::required;
use crate::ops::gelu::grad::silu_slope;
use crate::ops::gelu::sigmoid;
use crate::ops::support::body::Body;
use crate::ops::support::{Dense, facts, fast, rows};
use crate::{CpuContext, DOMAIN, Fact, GradNode, GradScope, Kernel, OpDef, OpError, OpNode};

pub(super) const OP: OpDef = OpDef::new("SwiGLUGrad", infer, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::cuda::grad)
    .with_function(function);

/// The rule of `SwiGLU`, for gate and up of one shape.
pub(super) fn rule(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let inputs = [dy, node.input(0)?, node.input(1)?].map(Some).to_vec();
    let grad = Node::new("SwiGLUGrad", inputs).with_domain(DOMAIN);
    Ok(scope.node_n("grad_swiglu", grad, 2)?.into_iter().map(Some).collect())
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (dy, gate) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    let up = facts::required(inputs, 2)?;
    if let (Some(of_gate), Some(of_up)) = (&gate.shape, &up.shape)
        && of_gate.len() != of_up.len()
    {
        return Err(OpError::shape("gate and up differ in their number of axes"));
    }
    for axis in 0..gate.shape.as_ref().map_or(0, Vec::len) as i64 {
        facts::same_size("up", gate.dim(axis), up.dim(axis))?;
        facts::same_size("dY", gate.dim(axis), dy.dim(axis))?;
    }
    Ok([facts::like(gate), facts::like(up)].into_iter().take(op.n_outputs()).collect())
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let read = |index| Dense::read(required(inputs, index)?);
    let (dy, gate, up) = (read(0)?, read(1)?, read(2)?);
    if dy.shape != gate.shape || up.shape != gate.shape {
        let shapes = [&dy.shape, &gate.shape, &up.shape];
        return Err(OpError::shape(format!("dY, gate and up differ in shape: {shapes:?}")));
    }
    let (mut dgate, mut dup) = (Vec::new(), Vec::new());
    for ((dy, gate), up) in dy.data.iter().zip(&gate.data).zip(&up.data) {
        let (dy, gate, up) = (f64::from(*dy), f64::from(*gate), f64::from(*up));
        dgate.push((dy * up * silu_slope(gate, 1.0)) as f32);
        dup.push((dy * gate * sigmoid(gate)) as f32);
    }
    let outputs = [dgate, dup].map(|data| Tensor::from_vec(&gate.shape, data));
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
    let [Some(dy), Some(gate), Some(up)] = [0, 1, 2].map(|i| fast::f32s(inputs, i)) else {
        return Ok(None);
    };
    let [of_dy, shape, of_up] =
        [0, 1, 2].map(|i| fast::input(inputs, i).map_or(&[][..], Tensor::shape));
    if of_dy != shape || of_up != shape {
        return Ok(None);
    }
    let mut dup = context.f32s(up.len())?;
    let dgate = rows::f32_output(context, shape.to_vec(), |dgate| {
        silu_mul_grad(context.pool, Isa::best(), &dy, &gate, &up, dgate, dup.as_mut());
    })?;
    let dup = context.f32_tensor(dup, shape.to_vec())?;
    Ok(Some([dgate, dup].into_iter().take(op.n_outputs()).collect()))
}

fn function() -> Function {
    let (mut body, inputs) = Body::new("SwiGLUGrad", &["dY", "gate", "up"]);
    let (dy, gate, up) = (inputs[0], inputs[1], inputs[2]);
    let s = body.op("s", "Sigmoid", &[gate]);
    let silu = body.op("silu", "Mul", &[gate, s]);
    let dup = body.op("dup", "Mul", &[dy, silu]);
    let one = body.float("one", 1.0);
    let rest = body.op("rest", "Sub", &[one, s]);
    let inner = body.op("inner", "Mul", &[gate, rest]);
    let inner = body.op("inner_one", "Add", &[inner, one]);
    let slope = body.op("slope", "Mul", &[s, inner]);
    let product = body.op("product", "Mul", &[dy, up]);
    let dgate = body.op("dgate", "Mul", &[product, slope]);
    body.finish(&[(dgate, "dgate"), (dup, "dup")])
}
