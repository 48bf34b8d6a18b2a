//! `Scan`: a graph that runs over the slices of tensors.

use planish_ir::{Graph, Tensor};

use super::infer::{self as inner, typed};
use super::stack::{axis_of, slice, stack, stack_of_none};
use super::{Body, Session, graph, n_captured};
use crate::op::required;
use crate::{CpuContext, Fact, Kernel, OpError, OpNode};

/// The version that dropped the batch axis.
const WITHOUT_BATCH: i64 = 9;

/// How the body's inputs and outputs are used.
#[derive(Clone)]
struct Plan {
    n_carried: usize,
    n_scanned: usize,
    /// For each scanned input: its axis, and whether it is read from the end.
    inputs: Vec<(i64, bool)>,
    /// The same of each output that is put together.
    outputs: Vec<(i64, bool)>,
}

impl Plan {
    fn new(op: &OpNode, body: &Graph) -> Result<Self, OpError> {
        if op.opset < WITHOUT_BATCH {
            return Err(OpError::unsupported("Scan of operator set 8 has a batch axis"));
        }
        let n_scanned = usize::try_from(op.node.int("num_scan_inputs", 0)).unwrap_or(0);
        let n_own = op.node.inputs.len().checked_sub(n_captured(op));
        let n_carried = n_own.and_then(|n| n.checked_sub(n_scanned)).filter(|n| {
            n_scanned > 0 && *n <= body.outputs.len() && body.inputs.len() == op.node.inputs.len()
        });
        let n_carried = n_carried.ok_or_else(|| {
            let (given, takes) = (op.node.inputs.len(), body.inputs.len());
            OpError::shape(format!("{given} inputs for a graph that takes {takes}"))
        })?;
        let list = |name: &str, i: usize| {
            op.node.ints(name).and_then(|values| values.get(i).copied()).unwrap_or(0)
        };
        let of = |n: usize, axes: &str, directions: &str| {
            (0..n).map(|i| (list(axes, i), list(directions, i) == 1)).collect::<Vec<_>>()
        };
        let n_stacked = body.outputs.len() - n_carried;
        Ok(Self {
            n_carried,
            n_scanned,
            inputs: of(n_scanned, "scan_input_axes", "scan_input_directions"),
            outputs: of(n_stacked, "scan_output_axes", "scan_output_directions"),
        })
    }

    /// Number of inputs that change from one iteration to the next.
    fn n_changing(&self) -> usize {
        self.n_carried + self.n_scanned
    }
}

pub(super) fn infer(op: &OpNode, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
    let body = graph(op, "body")?;
    let plan = Plan::new(op, body)?;
    let (first, rest) = inputs.split_at(plan.n_carried);
    let (scanned, captured) = rest.split_at(plan.n_scanned);
    let mut length = None;
    let mut slices = Vec::new();
    for (fact, (axis, _)) in scanned.iter().zip(&plan.inputs) {
        let Some(mut shape) = fact.shape.clone() else {
            slices.push(Fact::new(fact.dtype, None));
            continue;
        };
        let removed = shape.remove(axis_of(*axis, shape.len())?);
        length.get_or_insert(removed);
        slices.push(Fact::new(fact.dtype, Some(shape)));
    }
    let run =
        |states: &[Fact]| inner::outputs(body, op.opset, &[states, &slices, captured].concat());
    let n = plan.n_carried;
    let states = inner::carried(op.node, first, run);
    let stacked = run(&states).split_off(n).into_iter().zip(&plan.outputs).enumerate();
    let stacked = stacked.map(|(i, (part, (axis, _)))| {
        let part = typed(&inner::outer(op.node, n + i, part));
        let Some(mut shape) = part.shape else { return Ok(Fact::new(part.dtype, None)) };
        let rank = shape.len() + 1;
        let size = length.clone().unwrap_or_else(|| inner::fresh(op.node, n + i, rank));
        shape.insert(axis_of(*axis, rank)?, size);
        Ok(Fact::new(part.dtype, Some(shape)))
    });
    states.into_iter().map(Ok).chain(stacked).collect()
}

pub(super) fn eval(op: &OpNode, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let graph = graph(op, "body")?;
    let plan = Plan::new(op, graph)?;
    let body = Body::new(graph, op.opset, &[], false)?;
    let empty = facts_of_parts(op, graph, &plan);
    run(&body, &plan, &empty, &mut None, inputs)
}

fn facts_of_parts(op: &OpNode, graph: &Graph, plan: &Plan) -> Vec<Fact> {
    let unknown = vec![Fact::unknown(); graph.inputs.len()];
    inner::outputs(graph, op.opset, &unknown).split_off(plan.n_carried)
}

/// Runs over the slices of the inputs: carried values, scanned ones, captured ones.
fn run(
    body: &Body,
    plan: &Plan,
    empty: &[Fact],
    session: &mut Session,
    inputs: &[Option<Tensor>],
) -> Result<Vec<Tensor>, OpError> {
    let mut length = None;
    for (i, (axis, _)) in plan.inputs.iter().enumerate() {
        let scanned = required(inputs, plan.n_carried + i)?;
        let size = scanned.shape()[axis_of(*axis, scanned.shape().len())?];
        if *length.get_or_insert(size) != size {
            return Err(OpError::shape("its scanned inputs are of different lengths"));
        }
    }
    let length = length.unwrap_or(0);
    let mut given: Vec<Option<Tensor>> = inputs.to_vec();
    let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); plan.outputs.len()];
    for step in 0..length {
        for (i, (axis, backwards)) in plan.inputs.iter().enumerate() {
            let scanned = required(inputs, plan.n_carried + i)?;
            let index = if *backwards { length - 1 - step } else { step };
            let axis = axis_of(*axis, scanned.shape().len())?;
            given[plan.n_carried + i] = Some(slice(scanned, axis, index)?);
        }
        let mut results = body.run(session, &given)?.into_iter();
        for (slot, state) in given.iter_mut().take(plan.n_carried).zip(&mut results) {
            *slot = Some(state);
        }
        parts.iter_mut().zip(results).for_each(|(list, part)| list.push(part));
    }
    let carried = given.into_iter().take(plan.n_carried);
    let carried = carried.map(|state| state.ok_or(OpError::MissingInput(0)));
    let lists = parts.into_iter().zip(&plan.outputs).zip(empty);
    let stacked = lists.map(|((mut list, (axis, backwards)), fact)| {
        if list.is_empty() {
            return stack_of_none(fact);
        }
        if *backwards {
            list.reverse();
        }
        stack(&list, *axis)
    });
    carried.chain(stacked).collect()
}

pub(super) fn cpu(
    op: &OpNode,
    constants: &[Option<Tensor>],
) -> Result<Option<Box<dyn Kernel>>, OpError> {
    let graph = graph(op, "body")?;
    let plan = Plan::new(op, graph)?;
    let mut known = vec![None; plan.n_changing()];
    known.extend(constants.iter().skip(plan.n_changing()).cloned());
    let body = Body::new(graph, op.opset, &known, true)?;
    let empty = facts_of_parts(op, graph, &plan);
    let owned = known.iter().map(Option::is_some).collect();
    Ok(Some(Box::new(Scan { body, plan, empty, owned })))
}

struct Scan {
    body: Body,
    plan: Plan,
    empty: Vec<Fact>,
    /// Inputs that are constants, which the body holds.
    owned: Vec<bool>,
}

impl Kernel for Scan {
    fn run(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let inputs: Vec<Option<Tensor>> = inputs.iter().map(|t| t.cloned()).collect();
        run(&self.body, &self.plan, &self.empty, &mut Some(context), &inputs)
    }

    fn owns_input(&self, index: usize) -> bool {
        self.owned.get(index) == Some(&true)
    }

    fn weight_bytes(&self) -> usize {
        self.body.weight_bytes()
    }
}
