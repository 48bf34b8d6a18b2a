//! Logits for the last position only, on demand.

use std::collections::{HashMap, HashSet};

use planish_ir::{DataType, Dim, Graph, Model, Node, NodeId, Tensor, ValueId, ValueType};
use planish_kernels::infer::{Facts, infer};
use planish_kernels::{DOMAIN, MICROSOFT};

use super::LOGITS_FROM;
use crate::pass::PassError;

/// Lets the graph compute `logits` (`[batch, sequence, vocab]`) from a position on that the new
/// graph input [`LOGITS_FROM`] gives: what leads to the logits position by position, from the
/// last attention on, then runs on those positions alone. Returns the number of values that are
/// cut; 0 if the logits do not come from such operators, and the graph is as it was.
///
/// # Errors
/// If shapes contradict each other.
pub fn select_positions(model: &mut Model, logits: ValueId) -> Result<usize, PassError> {
    let facts = infer(model)?;
    let cuts = Region::find(&model.graph, &facts, logits)?.entrances(&model.graph, &facts);
    if cuts.is_empty() {
        return Ok(0);
    }
    cut(&mut model.graph, &cuts);
    let unknown = Dim::symbol("n_logits");
    if let ValueType::Tensor(ty) = &mut model.graph.value_mut(logits).ty
        && let Some(size) = ty.shape.as_mut().and_then(|shape| shape.get_mut(1))
    {
        *size = unknown;
    }
    debug_assert_eq!(planish_ir::verify(model), Ok(()));
    Ok(cuts.len())
}

/// The nodes that act position by position and lead to nothing but the logits.
struct Region {
    nodes: HashSet<NodeId>,
    /// The size of the axis of positions.
    sequence: Option<Dim>,
}

impl Region {
    fn find(graph: &Graph, facts: &Facts, logits: ValueId) -> Result<Self, PassError> {
        let sequence =
            facts.get(logits).dim(1).cloned().filter(|_| facts.get(logits).rank() == Some(3));
        let mut region = Self { nodes: HashSet::new(), sequence };
        let order = graph.topological_order().map_err(|e| PassError::Other(e.to_string()))?;
        for id in order.into_iter().rev() {
            if region.leads_only_here(graph, id, logits)
                && region.carriers(graph, facts, id).is_some()
            {
                region.nodes.insert(id);
            }
        }
        Ok(region)
    }

    fn leads_only_here(&self, graph: &Graph, id: NodeId, logits: ValueId) -> bool {
        graph.node(id).outputs.iter().flatten().all(|output| {
            let users = graph.users(*output);
            let is_inside = users.iter().all(|(user, _)| self.nodes.contains(user));
            is_inside && (graph.is_output(*output) == (*output == logits))
        })
    }

    /// The inputs of a node that have the axis of positions, if it acts on each alone.
    fn carriers(&self, graph: &Graph, facts: &Facts, id: NodeId) -> Option<Vec<ValueId>> {
        let node = graph.node(id);
        let allowed = activations(node)?;
        let mut carriers = Vec::new();
        for (index, input) in node.inputs.iter().enumerate() {
            let Some(value) = *input else { continue };
            let fact = facts.get(value);
            if is_static(graph, value) {
                let repeats = fact
                    .shape
                    .as_ref()?
                    .iter()
                    .rev()
                    .nth(1)
                    .is_none_or(|d| d.as_const() == Some(1));
                if index < allowed && !repeats {
                    return None;
                }
            } else if index < allowed
                && fact.rank() == Some(3)
                && fact.dim(1) == self.sequence.as_ref()
            {
                carriers.push(value);
            } else {
                return None;
            }
        }
        let keeps_rank = node.outputs.iter().flatten().all(|v| facts.get(*v).rank() == Some(3));
        (keeps_rank && !carriers.is_empty()).then_some(carriers)
    }

    /// The values with positions that enter the region.
    fn entrances(&self, graph: &Graph, facts: &Facts) -> Vec<(ValueId, Vec<(NodeId, usize)>)> {
        let mut values: Vec<ValueId> =
            self.nodes.iter().filter_map(|id| self.carriers(graph, facts, *id)).flatten().collect();
        values.sort_unstable();
        values.dedup();
        values.retain(|v| graph.producer(*v).is_none_or(|(id, _)| !self.nodes.contains(&id)));
        let users = |v: ValueId| {
            graph.users(v).into_iter().filter(|(user, _)| self.nodes.contains(user)).collect()
        };
        values.into_iter().map(|v| (v, users(v))).collect()
    }
}

/// How many of the first inputs of a node may have an axis of positions, if it acts on each
/// position alone; the others are weights.
fn activations(node: &Node) -> Option<usize> {
    let last_axis = |default| matches!(node.int("axis", default), -1 | 2);
    match (node.domain.as_str(), node.op_type.as_str()) {
        ("", "MatMul") => Some(1),
        ("", "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min") => Some(2),
        (
            "",
            "Cast" | "Identity" | "Neg" | "Abs" | "Exp" | "Log" | "Sqrt" | "Reciprocal" | "Relu"
            | "Sigmoid" | "Tanh" | "Erf" | "Softplus" | "Swish" | "HardSwish" | "Gelu" | "Clip",
        ) => Some(1),
        ("", "RMSNormalization" | "LayerNormalization" | "SimplifiedLayerNormalization") => {
            last_axis(-1).then_some(1)
        }
        ("", "Softmax") => last_axis(-1).then_some(1),
        ("", "Split") => last_axis(0).then_some(1),
        (MICROSOFT, "SkipSimplifiedLayerNormalization" | "SkipLayerNormalization") => Some(2),
        (MICROSOFT, "MatMulNBits") => Some(1),
        (DOMAIN, "QuantizedMatMul" | "BlockQuantizedMatMul") => Some(2),
        (
            DOMAIN,
            "DynamicQuantize"
            | "TransformQuantize"
            | "TransformLeftQuantize"
            | "Transform"
            | "TransformLeft"
            | "TransformHeads"
            | "QuantizeDequantizeHeads"
            | "Linear"
            | "WeightOnlyMatMul",
        ) => Some(1),
        _ => None,
    }
}

/// Whether a value is computed from constants alone.
fn is_static(graph: &Graph, value: ValueId) -> bool {
    if graph.constant(value).is_some() {
        return true;
    }
    graph.producer(value).is_some_and(|(id, _)| {
        graph.inputs_and_captures(id).into_iter().all(|input| is_static(graph, input))
    })
}

/// Lets the users of each value read it from the wanted position on.
fn cut(graph: &mut Graph, cuts: &[(ValueId, Vec<(NodeId, usize)>)]) {
    let ty = ValueType::tensor(DataType::I64, vec![Dim::from(1i64)]);
    let from = graph.new_value(LOGITS_FROM, ty);
    graph.inputs.push(from);
    let end = graph.add_constant("last_position", Tensor::from_vec(&[1], vec![i64::MAX]));
    let axis = graph.add_constant("position_axis", Tensor::from_vec(&[1], vec![1i64]));
    let mut shared: HashMap<ValueId, ValueId> = HashMap::new();
    for (value, users) in cuts {
        let slice = Node::new("Slice", vec![Some(*value), Some(from), Some(end), Some(axis)]);
        let name = format!("{}_wanted", graph.value(*value).name);
        let wanted = *shared.entry(*value).or_insert_with(|| graph.add_op(&name, slice));
        for (user, index) in users {
            graph.set_input(*user, *index, Some(wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{input, model};
    use super::*;

    /// `x`, a residual around a product, a norm, and a head.
    fn build(head: impl FnOnce(&mut Graph, ValueId) -> ValueId) -> (Model, ValueId) {
        let mut model = model();
        let graph = &mut model.graph;
        let x = input(graph, "x", DataType::F32, &["b", "s", "4"]);
        let mixed = graph.add_op("mixed", Node::new("CumSum", vec![Some(x), None]));
        let axis = graph.add_constant("axis", Tensor::scalar(1i64));
        let (cumsum, _) = graph.producer(mixed).unwrap();
        graph.set_input(cumsum, 1, Some(axis));
        let w = graph.add_constant("w", Tensor::from_vec(&[4, 4], vec![1f32; 16]));
        let y = graph.add_op("y", Node::new("MatMul", vec![Some(mixed), Some(w)]));
        let sum = graph.add_op("sum", Node::new("Add", vec![Some(x), Some(y)]));
        let weight = graph.add_constant("weight", Tensor::from_vec(&[4], vec![1f32; 4]));
        let norm = Node::new("RMSNormalization", vec![Some(sum), Some(weight)]);
        let norm = graph.add_op("norm", norm);
        let logits = head(graph, norm);
        graph.outputs.push(logits);
        (model, logits)
    }

    fn product(graph: &mut Graph, x: ValueId) -> ValueId {
        let w = graph.add_constant("head", Tensor::from_vec(&[4, 9], vec![1f32; 36]));
        graph.add_op("logits", Node::new("MatMul", vec![Some(x), Some(w)]))
    }

    fn is_cut(graph: &Graph, value: &str) -> bool {
        let value = graph.find_value(value).unwrap();
        let users = graph.users(value);
        users.iter().any(|(user, index)| *index == 0 && graph.node(*user).is("Slice"))
    }

    #[test]
    fn everything_after_the_last_mixing_of_positions_is_cut() {
        let (mut model, logits) = build(product);
        assert_eq!(select_positions(&mut model, logits).unwrap(), 2);
        let graph = &model.graph;
        assert!(is_cut(graph, "x") && is_cut(graph, "mixed"));
        assert!(!is_cut(graph, "y") && !is_cut(graph, "norm"));
        assert!(graph.find_value(LOGITS_FROM).is_some_and(|v| graph.is_input(v)));
    }

    #[test]
    fn a_value_that_leads_elsewhere_too_is_cut_after_that() {
        let (mut model, logits) = build(product);
        let norm = model.graph.find_value("norm").unwrap();
        model.graph.outputs.push(norm);
        assert_eq!(select_positions(&mut model, logits).unwrap(), 1);
        assert!(is_cut(&model.graph, "norm"));
    }

    #[test]
    fn logits_that_mix_positions_are_left_alone() {
        let (mut model, logits) = build(|graph, x| {
            let scores = Node::new("Softmax", vec![Some(x)]).with("axis", 1i64);
            graph.add_op("logits", scores)
        });
        assert_eq!(select_positions(&mut model, logits).unwrap(), 0);
        assert_eq!(model.graph.inputs.len(), 1);
    }
}
