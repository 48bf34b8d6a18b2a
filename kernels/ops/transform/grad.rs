//! The gradients of the transforms: planish's `TransformGrad` and `TransformLeftGrad`.
//!
//! Of Y = P1ᵀ·X̃·P2 and the gradient G of Y, both as `[n1, n2]`: dX = P1·W with W = G·P2ᵀ, and
//! summed over the rows dP1 = Σ X̃·Wᵀ and dP2 = Σ X̃ᵀ·(P1·G).

use planish_ir::{Function, Node, Tensor, ValueId};

use super::grad_cpu::cpu;
use crate::op::{optional, required};
use crate::ops::support::body::Body;
use crate::ops::support::{Dense, facts, kronecker};
use crate::{DOMAIN, Fact, GradNode, GradScope, OpDef, OpError, OpNode};

pub(super) const BOTH: OpDef = OpDef::new("TransformGrad", infer_both, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::cuda_grad::cuda)
    .with_function(both);

pub(super) const LEFT: OpDef = OpDef::new("TransformLeftGrad", infer_left, eval)
    .in_domain(DOMAIN)
    .with_cpu(cpu)
    .with_cuda(super::cuda_grad::cuda)
    .with_function(left);

/// The rule of both transforms. Where no factor is learned, the gradient of X is the transform by
/// the transposed factors.
pub(super) fn rule(
    scope: &mut GradScope,
    node: &GradNode,
) -> Result<Vec<Option<ValueId>>, OpError> {
    let Some(dy) = node.of_output(0) else { return Ok(node.nothing()) };
    let name = &node.op.node.op_type;
    let n_inputs = node.op.node.inputs.len();
    if (1..n_inputs).any(|i| node.wants(i)) {
        let inputs = std::iter::once(Some(dy)).chain(node.op.node.inputs.iter().copied());
        let grad = Node::new(format!("{name}Grad"), inputs.collect()).with_domain(DOMAIN);
        let outputs = scope.node_n("grad_transform", grad, n_inputs)?;
        return Ok(outputs.into_iter().map(Some).collect());
    }
    let mut inputs = vec![Some(dy)];
    for i in 1..n_inputs {
        let p = Node::new("Transpose", vec![Some(node.input(i)?)]).with("perm", vec![1i64, 0]);
        inputs.push(Some(scope.node("transposed", p)?));
    }
    let mut gradients = node.nothing();
    gradients[0] = Some(scope.node("grad_transform", Node::new(name, inputs).with_domain(DOMAIN))?);
    Ok(gradients)
}

fn infer_both(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    facts::required(inputs, 3)?;
    infer(op, inputs)
}

fn infer_left(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    infer(op, inputs)
}

fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (dy, x) = (facts::required(inputs, 0)?, facts::required(inputs, 1)?);
    facts::same_size("dY", x.dim(-1), dy.dim(-1))?;
    kronecker::check(x, facts::required(inputs, 2)?, inputs.get(3))?;
    Ok(inputs[1..].iter().map(facts::like).take(op.n_outputs()).collect())
}

fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (dy, x) = (required(inputs, 0)?, required(inputs, 1)?);
    if dy.shape() != x.shape() {
        return Err(OpError::shape(format!("dY is {:?}, X {:?}", dy.shape(), x.shape())));
    }
    let (p1, p2) = (required(inputs, 2)?, optional(inputs, 3));
    let (dy, x) = (Dense::read(dy)?, Dense::read(x)?);
    let mut sums = Sums::new(x.last(), p1, p2)?;
    let rows = dy.rows().zip(x.rows());
    let dx: Vec<f32> = rows.flat_map(|(dy, x)| sums.add_row(dy, x)).collect();
    let tensor = |shape: &[usize], sum: &[f64]| {
        Tensor::from_vec(shape, sum.iter().map(|v| *v as f32).collect())
    };
    let mut outputs = vec![Tensor::from_vec(&x.shape, dx), tensor(p1.shape(), &sums.dp1)];
    outputs.extend(p2.map(|p2| tensor(p2.shape(), &sums.dp2)));
    outputs.truncate(op.n_outputs());
    Ok(outputs)
}

/// The factors and the sums of their gradients, in f64.
struct Sums {
    n1: usize,
    n2: usize,
    p1: Vec<f64>,
    p2: Vec<f64>,
    dp1: Vec<f64>,
    dp2: Vec<f64>,
}

impl Sums {
    /// For rows of `n`; an absent P2 is the identity.
    fn new(n: usize, p1: &Tensor, p2: Option<&Tensor>) -> Result<Self, OpError> {
        let (n1, n2) = kronecker::sizes(n, p1, p2)?;
        let identity = || (0..n2 * n2).map(|i| f64::from(u8::from(i / n2 == i % n2))).collect();
        let wide = |p: &Tensor| -> Result<Vec<f64>, OpError> {
            Ok(p.to_f32_vec()?.into_iter().map(f64::from).collect())
        };
        let p2 = p2.map(wide).transpose()?.unwrap_or_else(identity);
        let (dp1, dp2) = (vec![0.0; n1 * n1], vec![0.0; n2 * n2]);
        Ok(Self { n1, n2, p1: wide(p1)?, p2, dp1, dp2 })
    }

    /// Adds what a row gives, and returns its dX.
    fn add_row(&mut self, dy: &[f32], x: &[f32]) -> Vec<f32> {
        let (n1, n2, p1, p2) = (self.n1, self.n2, &self.p1, &self.p2);
        let g = |i: usize, j: usize| f64::from(dy[i * n2 + j]);
        let x = |a: usize, b: usize| f64::from(x[a * n2 + b]);
        let w = product([n1, n2, n2], g, |j, b| p2[b * n2 + j]);
        let w = |i: usize, b: usize| w[i * n2 + b];
        let h = product([n1, n1, n2], |a, i| p1[a * n1 + i], g);
        let dx = product([n1, n1, n2], |a, i| p1[a * n1 + i], w);
        let dp1 = product([n1, n2, n1], x, |b, i| w(i, b));
        let dp2 = product([n2, n1, n2], |b, a| x(a, b), |a, j| h[a * n2 + j]);
        self.dp1.iter_mut().zip(dp1).for_each(|(sum, term)| *sum += term);
        self.dp2.iter_mut().zip(dp2).for_each(|(sum, term)| *sum += term);
        dx.into_iter().map(|v| v as f32).collect()
    }
}

/// a `[m, k]` · b `[k, n]`.
fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    (0..m * n).map(|i| (0..k).map(|l| a(i / n, l) * b(l, i % n)).sum()).collect()
}

fn both() -> Function {
    let (mut body, inputs) = Body::new("TransformGrad", &["dY", "X", "P1", "P2"]);
    let p2 = inputs[3];
    let n2 = body.shape("n2", p2, 0, Some(1));
    let [x, dy] = matrices(&mut body, &inputs, n2);
    let p2_t = transposed(&mut body, p2, &[1, 0]);
    let w = body.op("w", "MatMul", &[dy, p2_t]);
    let [dx, dp1] = left_part(&mut body, &inputs, x, w);
    let h = body.op("h", "MatMul", &[inputs[2], dy]);
    let x_t = transposed(&mut body, x, &[0, 2, 1]);
    let terms = body.op("terms_p2", "MatMul", &[x_t, h]);
    let dp2 = body.sum_first("dp2", terms);
    body.finish(&[(dx, "dX"), (dp1, "dP1"), (dp2, "dP2")])
}

fn left() -> Function {
    let (mut body, inputs) = Body::new("TransformLeftGrad", &["dY", "X", "P1"]);
    let n = body.shape("n", inputs[1], -1, None);
    let n1 = body.shape("rows", inputs[2], 0, Some(1));
    let n2 = body.op("n2", "Div", &[n, n1]);
    let [x, dy] = matrices(&mut body, &inputs, n2);
    let [dx, dp1] = left_part(&mut body, &inputs, x, dy);
    body.finish(&[(dx, "dX"), (dp1, "dP1")])
}

/// X and dY as `[rows, n1, n2]`.
fn matrices(body: &mut Body, inputs: &[ValueId], n2: ValueId) -> [ValueId; 2] {
    let rows = body.ints("all", &[-1]);
    let n1 = body.shape("n1", inputs[2], 0, Some(1));
    [(1, "x"), (0, "g")].map(|(i, hint)| body.reshape(hint, inputs[i], &[rows, n1, n2]))
}

/// dX and dP1, with W as `[rows, n1, n2]`.
fn left_part(body: &mut Body, inputs: &[ValueId], x: ValueId, w: ValueId) -> [ValueId; 2] {
    let dx = body.op("dx", "MatMul", &[inputs[2], w]);
    let whole = body.shape("whole", inputs[1], 0, None);
    let dx = body.reshape("dx_shaped", dx, &[whole]);
    let w_t = transposed(body, w, &[0, 2, 1]);
    let terms = body.op("terms_p1", "MatMul", &[x, w_t]);
    [dx, body.sum_first("dp1", terms)]
}

fn transposed(body: &mut Body, x: ValueId, perm: &[i64]) -> ValueId {
    body.node("transposed", Node::new("Transpose", vec![Some(x)]).with("perm", perm.to_vec()))
}
