//! `Loop`: a graph that runs a number of times, or as long as a condition holds.

use planish_ir::{DataType, Graph, Tensor};

use super::branch::holds;
use super::infer::{self as inner, typed};
use super::stack::{stack, stack_of_none};
use super::{Body, MAX_ITERATIONS, Session, graph, n_captured};
use crate::op::optional;
use crate::{CpuContext, Fact, Kernel, OpError, OpNode};

/// Inputs before the carried values: the number of iterations, and the condition.
const N_BEFORE: usize = 2;

/// The body, and how many values it carries from one iteration to the next.
fn parts<'a>(op: &'a OpNode) -> Result<(&'a Graph, usize), OpError> {
    let body = graph(op, "body")?;
    let n_given = op.node.inputs.len();
    let n_carried = n_given.checked_sub(N_BEFORE + n_captured(op));
    let fits = |n: &usize| n_given == body.inputs.len() && *n < body.outputs.len();
    let n_carried = n_carried.filter(fits).ok_or_else(|| {
        let (takes, gives) = (body.inputs.len(), body.outputs.len());
        OpError::shape(format!("{n_given} inputs for a graph that takes {takes} and gives {gives}"))
    })?;
    Ok((body, n_carried))
}

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let (body, n) = parts(op)?;
    let (first, captured) = inputs[N_BEFORE..].split_at(n);
    let scalar = |dtype| Fact::new(Some(dtype), Some(Vec::new()));
    let run = |states: &[Fact]| {
        let before = [scalar(DataType::I64), scalar(DataType::Bool)];
        inner::outputs(body, op.opset, &[&before, states, captured].concat())
    };
    let states = inner::carried(op.node, first, |states| run(states).split_off(1));
    let stacked = run(&states).split_off(1 + n).into_iter().enumerate().map(|(i, part)| {
        let part = typed(&inner::outer(op.node, n + i, part));
        let axis = part.shape.as_ref().map_or(0, Vec::len);
        let shape = part.shape.map(|s| [vec![inner::fresh(op.node, n + i, axis)], s].concat());
        Fact::new(part.dtype, shape)
    });
    Ok(states.into_iter().chain(stacked).collect())
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let (graph, n_carried) = parts(op)?;
    let body = Body::new(graph, op.opset, &[], false)?;
    let empty = facts_of_parts(op, graph, n_carried);
    run(&body, n_carried, &empty, &mut None, inputs)
}

/// What is known of the parts of outputs that are put together, where the loop ends at once.
fn facts_of_parts(op: &OpNode, graph: &Graph, n_carried: usize) -> Vec<Fact> {
    let unknown = vec![Fact::unknown(); graph.inputs.len()];
    inner::outputs(graph, op.opset, &unknown).split_off(1 + n_carried)
}

/// Runs the loop on its inputs: iterations, condition, carried values, captured ones.
fn run(
    body: &Body,
    n_carried: usize,
    empty: &[Fact],
    session: &mut Session,
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    let limit = match optional(inputs, 0) {
        Some(count) => count.to_i64_vec()?.first().copied().unwrap_or(0),
        None => i64::MAX,
    };
    let mut goes_on = optional(inputs, 1).map_or(Ok(true), holds)?;
    let mut given: Vec<Option<Tensor>> = inputs.to_vec();
    let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); empty.len()];
    let mut iteration = 0i64;
    while goes_on && iteration < limit {
        if iteration as usize >= MAX_ITERATIONS {
            return Err(OpError::unsupported(format!("it runs more than {MAX_ITERATIONS} times")));
        }
        given[0] = Some(Tensor::scalar(iteration));
        given[1] = Some(Tensor::from_bools(&[], &[true]));
        let mut results = body.run(session, &given)?.into_iter();
        goes_on = holds(&results.next().ok_or(OpError::MissingInput(0))?)?;
        for (slot, state) in given[N_BEFORE..].iter_mut().take(n_carried).zip(&mut results) {
            *slot = Some(state);
        }
        parts.iter_mut().zip(results).for_each(|(list, part)| list.push(part));
        iteration += 1;
    }
    let carried = given.into_iter().skip(N_BEFORE).take(n_carried);
    let carried = carried.map(|state| state.ok_or(OpError::MissingInput(N_BEFORE)));
    let stacked = parts.iter().zip(empty).map(|(list, fact)| match list.is_empty() {
        true => stack_of_none(fact),
        false => stack(list, 0),
    });
    carried.chain(stacked).collect()
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let (graph, n_carried) = parts(op)?;
    let n_changing = N_BEFORE + n_carried;
    let mut known = vec![None; n_changing];
    known.extend(constants.iter().skip(n_changing).cloned());
    let body = Body::new(graph, op.opset, &known, true)?;
    let owned = known.iter().map(Option::is_some).collect();
    let empty = facts_of_parts(op, graph, n_carried);
    Ok(Some(Box::new(Loop { body, n_carried, empty, owned })))
}

struct Loop {
    body: Body,
    n_carried: usize,
    empty: Vec<Fact>,
    /// Inputs that are constants, which the body holds.
    owned: Vec<bool>,
}

impl Kernel for Loop {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let inputs: Vec<Option<Tensor>> = inputs.iter().map(|t| t.cloned()).collect();
        run(&self.body, self.n_carried, &self.empty, &mut Some(context), &inputs)
    }

    fn owns_input(&self, index: usize) -> bool {
        self.owned.get(index) == Some(&true)
    }

    fn weight_bytes(&self) -> usize {
        self.body.weight_bytes()
    }
}
