//! Reverse-mode differentiation as a pass: every operator's gradient rule adds ordinary nodes.

use std::collections::{HashMap, HashSet};

use planish_ir::{Graph, GraphError, Model, Node, NodeId, OpsetImport, ValueId};
use planish_kernels::infer::{Facts, InferError, infer};
use planish_kernels::{GradNode, GradScope, OpError, OpNode, ops};

mod prune;

#[cfg(test)]
pub(crate) mod block;
#[cfg(test)]
mod cases;
#[cfg(test)]
pub(crate) mod check;
#[cfg(test)]
mod tests;

use prune::Vertices;

/// The first operator set of ONNX's own domain in which all nodes that rules emit mean what the
/// rules mean.
const FIRST_OPSET: i64 = 18;

/// Why a graph can't be differentiated.
#[derive(Debug, thiserror::Error)]
pub enum AutodiffError {
    /// Shapes that contradict each other.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The graph has no order.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Rules emit nodes of a newer operator set than the graph's.
    #[error("gradients need operator set {FIRST_OPSET}, the model has {0}")]
    Opset(i64),
    /// A seed that can't be the gradient of its value.
    #[error("the gradient \"{gradient}\" is not of the type and shape of \"{value}\"")]
    Seed {
        /// The value.
        value: String,
        /// What was given as its gradient.
        gradient: String,
    },
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

/// Adds the nodes that compute the gradients of a scalar with respect to the values `wrt`: inputs,
/// constants or results of nodes.
///
/// `seeds` are values and the scalar's gradients with respect to them (of the same shapes); where
/// the scalar is a value of the graph itself, its seed is the constant 1. Seeds of the same value
/// add up. Returns for each of `wrt` its gradient, `None` where the scalar does not depend on it.
/// Only what lies between `wrt` and the seeds is gone through.
///
/// # Errors
/// If an operator between has no gradient rule or its rule does not take the node, if a seed does
/// not have the shape of its value, or the model is of an operator set before 18.
pub fn differentiate(
    model: &mut Model,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    let opset = model.opset("").unwrap_or(1);
    if opset < FIRST_OPSET {
        return Err(AutodiffError::Opset(opset));
    }
    let facts = infer(model)?;
    let forward = Vertices::of(&model.graph);
    let mut backward = Backward::new(&mut model.graph, &model.opset_imports, facts, wrt)?;
    for (value, gradient) in seeds {
        backward.check_seed(*value, *gradient)?;
        backward.add(*value, *gradient)?;
    }
    for id in std::mem::take(&mut backward.order).into_iter().rev() {
        backward.pass(id)?;
    }
    let gradients: Vec<Option<ValueId>> =
        wrt.iter().map(|value| backward.gradients.get(value).copied()).collect();
    forward.prune(&mut model.graph, &gradients)?;
    import_domains(model);
    Ok(gradients)
}

/// Imports the domains that rules brought in.
fn import_domains(model: &mut Model) {
    let graph = &model.graph;
    let mut domains: Vec<String> =
        graph.node_ids().map(|id| graph.node(id).domain.clone()).collect();
    domains.sort_unstable();
    domains.dedup();
    for domain in domains {
        if model.opset(&domain).is_none() {
            model.set_opset(&domain, 1);
        }
    }
}

/// The way back through a graph.
struct Backward<'a> {
    graph: &'a mut Graph,
    imports: &'a [OpsetImport],
    facts: Facts,
    /// The nodes of the forward graph.
    order: Vec<NodeId>,
    /// What depends on the values that gradients are wanted of.
    active: HashSet<ValueId>,
    /// The gradients found so far.
    gradients: HashMap<ValueId, ValueId>,
}

impl<'a> Backward<'a> {
    fn new(
        graph: &'a mut Graph,
        imports: &'a [OpsetImport],
        facts: Facts,
        wrt: &[ValueId],
    ) -> Result<Self, AutodiffError> {
        let order = graph.topological_order()?;
        let active = depending_on(graph, &facts, &order, wrt);
        Ok(Self { graph, imports, facts, order, active, gradients: HashMap::new() })
    }

    fn check_seed(&self, value: ValueId, gradient: ValueId) -> Result<(), AutodiffError> {
        let (of_value, given) = (self.facts.get(value), self.facts.get(gradient));
        let same_type = of_value.dtype.zip(given.dtype).is_none_or(|(a, b)| a == b);
        let same_shape = of_value.shape.zip(given.shape).is_none_or(|(a, b)| {
            let sizes = a.iter().zip(&b).filter_map(|(a, b)| a.as_const().zip(b.as_const()));
            a.len() == b.len() && sizes.into_iter().all(|(a, b)| a == b)
        });
        if same_type && same_shape {
            return Ok(());
        }
        let name = |value| self.graph.value(value).name.clone();
        Err(AutodiffError::Seed { value: name(value), gradient: name(gradient) })
    }

    /// Adds a contribution to the gradient of `value`, if that is of use.
    fn add(&mut self, value: ValueId, gradient: ValueId) -> Result<(), AutodiffError> {
        if !self.active.contains(&value) {
            return Ok(());
        }
        let total = match self.gradients.get(&value).copied() {
            None => gradient,
            Some(before) => self
                .scope(|scope| scope.op("Add", &[before, gradient]))
                .map_err(|error| AutodiffError::Rule { node: "a sum".into(), error })?,
        };
        self.gradients.insert(value, total);
        Ok(())
    }

    /// Applies the rule of a node, if a gradient reaches it and something before it wants one.
    fn pass(&mut self, id: NodeId) -> Result<(), AutodiffError> {
        let node = self.graph.node(id).clone();
        let outputs: Vec<Option<ValueId>> =
            node.outputs.iter().map(|v| self.gradients.get(&(*v)?).copied()).collect();
        let reads_active =
            self.graph.inputs_and_captures(id).iter().any(|v| self.active.contains(v));
        if outputs.iter().all(Option::is_none) || !reads_active {
            return Ok(());
        }
        let wanted: Vec<bool> =
            node.inputs.iter().map(|v| v.is_some_and(|v| self.active.contains(&v))).collect();
        let gradients = self.apply(&node, &outputs, &wanted)?;
        for (value, gradient) in node.inputs.iter().zip(gradients) {
            if let (Some(value), Some(gradient)) = (value, gradient) {
                self.add(*value, gradient)?;
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        node: &Node,
        outputs: &[Option<ValueId>],
        wanted: &[bool],
    ) -> Result<Vec<Option<ValueId>>, AutodiffError> {
        let no_rule = || AutodiffError::NoRule { node: node.describe(), op: node.op_type.clone() };
        let op = ops::find(&node.domain, &node.op_type);
        let rule = op.and_then(|op| op.grad).ok_or_else(no_rule)?;
        let op = OpNode { node, opset: version(self.imports, &node.domain) };
        self.scope(|scope| rule(scope, &GradNode { op, outputs, wanted }))
            .map_err(|error| AutodiffError::Rule { node: node.describe(), error })
    }

    fn scope<T>(&mut self, f: impl FnOnce(&mut GradScope) -> T) -> T {
        let opset = |domain: &str| version(self.imports, domain);
        f(&mut GradScope::new(self.graph, &mut self.facts, &opset))
    }
}

fn version(imports: &[OpsetImport], domain: &str) -> i64 {
    imports.iter().find(|import| import.domain == domain).map_or(1, |import| import.version)
}

/// The values that depend on one of `wrt`, those included, as far as a small change of one can be
/// a small change of the other: no integers, no bools.
fn depending_on(
    graph: &Graph,
    facts: &Facts,
    order: &[NodeId],
    wrt: &[ValueId],
) -> HashSet<ValueId> {
    let is_smooth = |value: &ValueId| facts.get(*value).dtype.is_none_or(|dtype| dtype.is_float());
    let mut active: HashSet<ValueId> = wrt.iter().copied().filter(is_smooth).collect();
    for id in order {
        if graph.inputs_and_captures(*id).iter().any(|v| active.contains(v)) {
            let outputs = graph.node(*id).outputs.iter().flatten();
            active.extend(outputs.filter(|v| is_smooth(v)));
        }
    }
    active
}
