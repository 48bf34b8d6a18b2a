//! Reverse-mode differentiation as a pass: every operator's gradient rule adds ordinary nodes.

use std::collections::{HashMap, HashSet};

use planish_ir::{Graph, GraphError, Model, NodeId, ValueId};
use planish_kernels::infer::{Facts, InferError, infer};
use planish_kernels::{DOMAIN, GradNode, GradScope, MICROSOFT, OpError, OpNode, ops};

/// Why a graph can't be differentiated.
#[derive(Debug, thiserror::Error)]
pub enum AutodiffError {
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The graph has no order.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An operator that lies on the way and has no gradient rule.
    #[error("nothing can be learned through {node}: there is no gradient rule for {op}")]
    NoRule {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A rule that does not apply to a node.
    #[error("nothing can be learned through {node}: {error}")]
    Rule {
        /// The node.
        node: String,
        /// Why.
        error: OpError,
    },
}

/// Adds the nodes that compute the gradients of a scalar with respect to the values `wrt`.
///
/// `seeds` are values and the scalar's gradients with respect to them (of the same shapes); where
/// the scalar is a value of the graph itself, its seed is the constant 1. Returns for each of
/// `wrt` its gradient, `None` where the scalar does not depend on it.
///
/// # Errors
/// If an operator between has no gradient rule, or its rule does not take the node.
pub fn differentiate(
    model: &mut Model,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    for (domain, version) in [(DOMAIN, 1), (MICROSOFT, 1)] {
        if model.opset(domain).is_none() {
            model.set_opset(domain, version);
        }
    }
    let mut facts = infer(model)?;
    let imports = model.opset_imports.clone();
    let opset = |domain: &str| imports.iter().find(|o| o.domain == domain).map_or(1, |o| o.version);
    let graph = &mut model.graph;
    let order = graph.topological_order()?;
    let active = depending_on(graph, &order, wrt);
    let mut sums = Sums::default();
    for (value, gradient) in seeds {
        sums.add(graph, &mut facts, &opset, *value, *gradient)?;
    }
    for id in order.into_iter().rev() {
        backward(graph, &mut facts, &opset, id, &active, &mut sums)?;
    }
    Ok(wrt.iter().map(|value| sums.gradients.get(value).copied()).collect())
}

/// The gradients found so far.
#[derive(Default)]
struct Sums {
    gradients: HashMap<ValueId, ValueId>,
}

impl Sums {
    /// Adds a contribution to the gradient of `value`.
    fn add(
        &mut self,
        graph: &mut Graph,
        facts: &mut Facts,
        opset: &dyn Fn(&str) -> i64,
        value: ValueId,
        gradient: ValueId,
    ) -> Result<(), AutodiffError> {
        let total = match self.gradients.get(&value) {
            None => gradient,
            Some(before) => GradScope::new(graph, facts, opset)
                .op("Add", &[*before, gradient])
                .map_err(|error| AutodiffError::Rule { node: "a sum".into(), error })?,
        };
        self.gradients.insert(value, total);
        Ok(())
    }
}

/// The values that depend on one of `wrt`, those included.
fn depending_on(graph: &Graph, order: &[NodeId], wrt: &[ValueId]) -> HashSet<ValueId> {
    let mut active: HashSet<ValueId> = wrt.iter().copied().collect();
    for id in order {
        let node = graph.node(*id);
        if node.inputs.iter().flatten().any(|v| active.contains(v)) {
            active.extend(node.outputs.iter().flatten());
        }
    }
    active
}

/// Applies the rule of a node, if a gradient reaches it and something before it wants one.
fn backward(
    graph: &mut Graph,
    facts: &mut Facts,
    opset: &dyn Fn(&str) -> i64,
    id: NodeId,
    active: &HashSet<ValueId>,
    sums: &mut Sums,
) -> Result<(), AutodiffError> {
    let node = graph.node(id).clone();
    let outputs: Vec<Option<ValueId>> =
        node.outputs.iter().map(|v| sums.gradients.get(&(*v)?).copied()).collect();
    let wanted: Vec<bool> =
        node.inputs.iter().map(|v| v.is_some_and(|v| active.contains(&v))).collect();
    if outputs.iter().all(Option::is_none) || !wanted.contains(&true) {
        return Ok(());
    }
    let op = ops::find(&node.domain, &node.op_type).and_then(|op| op.grad);
    let no_rule = || AutodiffError::NoRule { node: node.describe(), op: node.op_type.clone() };
    let rule = op.ok_or_else(no_rule)?;
    let op = OpNode { node: &node, opset: opset(&node.domain) };
    let gradients = rule(
        &mut GradScope::new(graph, facts, opset),
        &GradNode { op, outputs: &outputs, wanted: &wanted },
    )
    .map_err(|error| AutodiffError::Rule { node: node.describe(), error })?;
    for ((value, gradient), wanted) in node.inputs.iter().zip(gradients).zip(wanted) {
        if let (Some(value), Some(gradient), true) = (value, gradient, wanted) {
            sums.add(graph, facts, opset, *value, gradient)?;
        }
    }
    Ok(())
}
