//! Shape and type inference over a graph.

use std::borrow::Cow;
use std::collections::HashMap;

use planish_ir::{Dim, Graph, Model, Node, NodeId, Tensor, ValueId};

use crate::ops::control_flow::{close, holds_graphs, is_closed};
use crate::{Fact, OpError, OpNode, ops};

/// Constants up to this size are computed during inference, so that chains of integer
/// arithmetic on sizes come out.
const MAX_FOLDED: usize = 4096;

/// What is known of every value of a graph.
#[derive(Default)]
pub struct Facts {
    facts: HashMap<ValueId, Fact>,
}

impl Facts {
    /// What is known of a value; nothing for those that were added since.
    pub fn get(&self, value: ValueId) -> Fact {
        self.facts.get(&value).cloned().unwrap_or_default()
    }

    /// The shape of a value, if its rank is known.
    pub fn shape(&self, value: ValueId) -> Option<&[Dim]> {
        self.facts.get(&value)?.shape.as_deref()
    }

    /// Records what is known of a value.
    pub fn set(&mut self, value: ValueId, fact: Fact) {
        self.facts.insert(value, fact);
    }
}

/// A node whose inputs contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("node {node}: {error}")]
pub struct InferError {
    /// The node.
    pub node: String,
    /// What is wrong.
    pub error: OpError,
}

/// Infers types and shapes of all values of the model's graph. Operators that nobody knows leave
/// their outputs as declared; a size that only a run can tell becomes a symbol of its own.
///
/// # Errors
/// The first node whose inputs contradict each other, or a cycle.
pub fn infer(model: &Model) -> Result<Facts, InferError> {
    infer_graph(&model.graph, &|domain| model.opset(domain).unwrap_or(1))
}

/// As [`infer`], for a graph under the operator set versions that `opset` gives.
///
/// # Errors
/// As [`infer`].
pub fn infer_graph(graph: &Graph, opset: &dyn Fn(&str) -> i64) -> Result<Facts, InferError> {
    infer_given(graph, opset, std::iter::empty())
}

/// As [`infer_graph`], with more known of some values than their types say.
///
/// # Errors
/// As [`infer`].
pub fn infer_given(
    graph: &Graph,
    opset: &dyn Fn(&str) -> i64,
    given: impl Iterator<Item = (ValueId, Fact)>,
) -> Result<Facts, InferError> {
    let mut facts = Facts::default();
    for value in graph.value_ids() {
        let known = match graph.constant(value) {
            Some(tensor) => Fact::of_constant(tensor),
            None => Fact::of_type(&graph.value(value).ty),
        };
        facts.set(value, known);
    }
    for (value, fact) in given {
        let declared = facts.get(value);
        let dtype = fact.dtype.or(declared.dtype);
        facts.set(value, Fact { dtype, shape: fact.shape.clone().or(declared.shape), ..fact });
    }
    let order = graph.topological_order().map_err(|error| InferError {
        node: String::new(),
        error: OpError::Shape(error.to_string()),
    })?;
    for node in order {
        infer_node(graph, node, opset, &mut facts)?;
    }
    Ok(facts)
}

/// Infers one node whose inputs are known, and records what comes out in `facts`.
///
/// # Errors
/// If its inputs contradict each other.
pub fn infer_node(
    graph: &Graph,
    id: NodeId,
    opset: &dyn Fn(&str) -> i64,
    facts: &mut Facts,
) -> Result<(), InferError> {
    let node = &*closed(graph.node(id));
    let Some(op) = ops::find(&node.domain, &node.op_type) else { return Ok(()) };
    let view = OpNode { node, opset: opset(&node.domain) };
    let inputs: Vec<Fact> = node
        .inputs
        .iter()
        .map(|input| input.map_or_else(Fact::absent, |value| facts.get(value)))
        .collect();
    let fail = |error| InferError { node: node.describe(), error };
    let mut inferred = (op.infer)(&view, &inputs).map_err(fail)?;
    if let Some(folded) = fold(node, &view, op.eval, &inputs, &inferred) {
        inferred = folded;
    }
    let is_read = |value: &ValueId| !graph.users(*value).is_empty() || graph.is_output(*value);
    if node.outputs.iter().skip(inferred.len()).flatten().any(is_read) {
        return Err(fail(OpError::unsupported("it lists more outputs than its operator has")));
    }
    for (output, fact) in node.outputs.iter().zip(inferred) {
        let Some(output) = output else { continue };
        let declared = facts.get(*output);
        facts.set(*output, merge(fact, declared).map_err(fail)?);
    }
    Ok(())
}

/// The node in the form that operators take: what graphs in it capture as inputs of its own.
pub fn closed(node: &Node) -> Cow<'_, Node> {
    match holds_graphs(node) && !is_closed(node) {
        true => Cow::Owned(close(node)),
        false => Cow::Borrowed(node),
    }
}

/// Evaluates a small node whose inputs are all constant.
fn fold(
    node: &Node,
    view: &OpNode,
    eval: crate::op::EvalFn,
    inputs: &[Fact],
    inferred: &[Fact],
) -> Option<Vec<Fact>> {
    if inferred.iter().all(|fact| fact.constant.is_some()) || node.inputs.is_empty() {
        return None;
    }
    // Kernels walk along the other axes of an empty tensor too.
    let is_small = |t: &Tensor| {
        let n = t.shape().iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
        n.is_some_and(|n| n <= MAX_FOLDED)
    };
    let constants: Option<Vec<Option<Tensor>>> = inputs
        .iter()
        .map(|f| if f.absent { Some(None) } else { f.constant.clone().filter(is_small).map(Some) })
        .collect();
    let outputs_small = inferred.iter().all(|fact| {
        let mut sizes = fact.shape.iter().flatten();
        let n = sizes.try_fold(1i64, |n, d| n.checked_mul(d.as_const()?.max(1)));
        fact.shape.is_some() && n.is_some_and(|n| n <= MAX_FOLDED as i64)
    });
    if !outputs_small {
        return None;
    }
    let outputs = eval(view, &constants?).ok()?;
    Some(outputs.iter().map(Fact::of_constant).collect())
}

/// Inference knows best, but where it does not know, the declaration in the file counts. Two
/// ranks or two numbers that differ are a contradiction.
fn merge(inferred: Fact, declared: Fact) -> Result<Fact, OpError> {
    let shape = match (inferred.shape, declared.shape) {
        (Some(a), Some(b)) if a.len() != b.len() => {
            return Err(OpError::shape(format!(
                "its output has shape {a:?}, but {b:?} is declared"
            )));
        }
        (Some(a), Some(b)) => {
            let differ = a
                .iter()
                .zip(&b)
                .any(|(a, b)| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b));
            if differ {
                return Err(OpError::shape(format!(
                    "its output has shape {a:?}, but {b:?} is declared"
                )));
            }
            Some(a.into_iter().zip(b).map(|(a, b)| if is_unknown(&a) { b } else { a }).collect())
        }
        (a, b) => a.or(b),
    };
    Ok(Fact { dtype: inferred.dtype.or(declared.dtype), shape, ..inferred })
}

/// A symbol for a size that only a run can tell.
///
/// The name is made from the output's position in the node, which is unique in the graph.
pub fn unknown_dim(node: &Node, axis: usize) -> Dim {
    let output = node.outputs.iter().flatten().next().map_or(0, |value| value.index());
    Dim::symbol(&format!("{UNKNOWN}{output}_{axis}"))
}

const UNKNOWN: &str = "unknown_";

/// Whether a size is one that only a run can tell.
pub(crate) fn is_unknown(dim: &Dim) -> bool {
    dim.as_const().is_none() && dim.symbols().iter().any(|s| s.starts_with(UNKNOWN))
}
