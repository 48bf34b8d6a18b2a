//! `If`: one of two graphs.

use planish_ir::Tensor;

use super::{Body, Session, graph, infer as inner};
use crate::op::required;
use crate::{CpuContext, Fact, Kernel, OpError, OpNode};

const BRANCHES: [&str; 2] = ["then_branch", "else_branch"];

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let captured = inputs.get(1..).unwrap_or_default();
    let of = |name: &str| Ok::<_, OpError>(inner::outputs(graph(op, name)?, op.opset, captured));
    let condition = inputs.first().and_then(|fact| fact.constant.as_ref());
    let facts = match condition {
        Some(condition) => of(chosen(condition)?)?,
        None => {
            let branches = of(BRANCHES[0])?.into_iter().zip(of(BRANCHES[1])?).enumerate();
            let either = |(i, (a, b))| {
                let (a, b) = (inner::outer(op.node, i, a), inner::outer(op.node, i, b));
                inner::either(a, b, |axis| inner::fresh(op.node, i, axis))
            };
            branches.map(either).collect()
        }
    };
    Ok(facts.into_iter().enumerate().map(|(i, fact)| inner::outer(op.node, i, fact)).collect())
}

/// The branch that a condition chooses.
fn chosen(condition: &Tensor) -> Result<&'static str, OpError> {
    Ok(if holds(condition)? { BRANCHES[0] } else { BRANCHES[1] })
}

/// A condition: one element, which is not 0.
pub(super) fn holds(condition: &Tensor) -> Result<bool, OpError> {
    if condition.n_elements() != 1 {
        let shape = condition.shape();
        return Err(OpError::shape(format!("its condition has the shape {shape:?}")));
    }
    Ok(condition.bytes().iter().any(|byte| *byte != 0))
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let branch = graph(op, chosen(required(inputs, 0)?)?)?;
    Body::new(branch, op.opset, &[], false)?.run(&mut None, &inputs[1..])
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let known = constants.get(1..).unwrap_or_default();
    let body = |name: &str| Body::new(graph(op, name)?, op.opset, known, true);
    let constant = known.iter().map(Option::is_some).collect();
    Ok(Some(Box::new(If { bodies: [body(BRANCHES[0])?, body(BRANCHES[1])?], constant })))
}

struct If {
    bodies: [Body; 2],
    /// Which captured values are constants, which the bodies hold.
    constant: Vec<bool>,
}

impl Kernel for If {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let condition = crate::kernel::required(inputs, 0)?;
        let body = &self.bodies[usize::from(!holds(condition)?)];
        let captured: Vec<Option<Tensor>> = inputs[1..].iter().map(|t| t.cloned()).collect();
        let mut session: Session = Some(context);
        body.run(&mut session, &captured)
    }

    fn owns_input(&self, index: usize) -> bool {
        let Some(index) = index.checked_sub(1) else { return false };
        self.constant.get(index) == Some(&true)
    }

    fn weight_bytes(&self) -> usize {
        self.bodies.iter().map(Body::weight_bytes).sum()
    }
}
