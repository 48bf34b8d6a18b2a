//! The invariants of a graph, checked.

use std::collections::HashSet;

use crate::graph::{Slot, Vertex};
use crate::{Dim, Graph, Model, NodeId, ValueId};

/// What is wrong with a graph.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid graph \"{graph}\": {problem}")]
pub struct VerifyError {
    /// Name of the graph.
    pub graph: String,
    /// What is wrong, naming the node or value.
    pub problem: String,
}

/// Checks a model's graph, its subgraphs, and the bodies of its functions:
///
/// - edges and the nodes' ordered input and output lists say the same;
/// - every value that a node reads or the graph returns has a producer, or is an input, an
///   initializer, or captured from the enclosing graph;
/// - no value has two producers, and neither inputs nor initializers have one;
/// - names of values are unique and not empty, and the name table agrees;
/// - there is no cycle;
/// - the type of a constant is the type of its data;
/// - captures name values that exist on both sides.
///
/// # Errors
/// The first violation found.
pub fn verify(model: &Model) -> Result<(), VerifyError> {
    verify_graph(&model.graph)?;
    model.functions.iter().try_for_each(|function| verify_graph(&function.body))
}

fn verify_graph(graph: &Graph) -> Result<(), VerifyError> {
    let fail = |problem: String| VerifyError { graph: graph.name.clone(), problem };
    check_names(graph).map_err(fail)?;
    check_edges(graph).map_err(fail)?;
    check_values(graph).map_err(fail)?;
    graph.topological_order().map_err(|error| fail(error.to_string()))?;
    for node in graph.node_ids() {
        for inner in graph.node(node).attributes.values().flat_map(|a| a.graphs()) {
            check_captures(graph, inner).map_err(fail)?;
            verify_graph(inner)?;
        }
    }
    Ok(())
}

fn check_names(graph: &Graph) -> Result<(), String> {
    for id in graph.value_ids() {
        let name = &graph.value(id).name;
        if name.is_empty() {
            return Err(format!("the value {} has no name", id.index()));
        }
        if graph.find_value(name) != Some(id) {
            return Err(format!("the name \"{name}\" does not lead to its value"));
        }
    }
    Ok(())
}

fn check_edges(graph: &Graph) -> Result<(), String> {
    let mut n_edges = 0;
    for id in graph.node_ids() {
        let expected = expected_edges(graph, id);
        n_edges += expected.len();
        for (value, slot) in expected {
            if !graph.contains_value(value) {
                return Err(format!(
                    "{} refers to a value that is gone",
                    graph.node(id).describe()
                ));
            }
            let (from, to) =
                if matches!(slot, Slot::Output(_)) { (id.0, value.0) } else { (value.0, id.0) };
            if !graph.dag.edges_connecting(from, to).any(|edge| *edge.weight() == slot) {
                let name = &graph.value(value).name;
                return Err(format!("{} lacks its edge to \"{name}\"", graph.node(id).describe()));
            }
        }
    }
    if n_edges != graph.dag.edge_count() {
        return Err(format!("{} edges, but the nodes list {n_edges}", graph.dag.edge_count()));
    }
    Ok(())
}

fn expected_edges(graph: &Graph, id: NodeId) -> Vec<(ValueId, Slot)> {
    let node = graph.node(id);
    let inputs = node.inputs.iter().enumerate();
    let outputs = node.outputs.iter().enumerate();
    let captured: HashSet<ValueId> = node
        .attributes
        .values()
        .flat_map(|a| a.graphs())
        .flat_map(|g| g.captures.iter().map(|c| c.outer))
        .collect();
    inputs
        .filter_map(|(i, v)| Some(((*v)?, Slot::Input(i as u32))))
        .chain(outputs.filter_map(|(i, v)| Some(((*v)?, Slot::Output(i as u32)))))
        .chain(captured.into_iter().map(|v| (v, Slot::Captured)))
        .collect()
}

fn check_values(graph: &Graph) -> Result<(), String> {
    let inputs: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    let captured: HashSet<ValueId> = graph.captures.iter().map(|c| c.inner).collect();
    for id in graph.inputs.iter().chain(&graph.outputs) {
        if !graph.contains_value(*id) {
            return Err("an input or output is gone".into());
        }
    }
    for id in graph.value_ids() {
        let value = graph.value(id);
        let writers = graph.dag.edges_directed(id.0, petgraph::Incoming).count();
        let is_source = inputs.contains(&id) || value.constant.is_some() || captured.contains(&id);
        let is_read = !graph.users(id).is_empty() || graph.is_output(id);
        match writers {
            0 if is_read && !is_source => {
                return Err(format!("nothing writes the value \"{}\"", value.name));
            }
            1 if is_source => {
                return Err(format!("a node writes the input or initializer \"{}\"", value.name));
            }
            0 | 1 => {}
            _ => return Err(format!("two nodes write the value \"{}\"", value.name)),
        }
        if let (Some(tensor), Some(ty)) = (&value.constant, value.ty.as_tensor()) {
            let agrees = ty.shape.as_ref().is_none_or(|shape| fits(shape, tensor.shape()));
            if !agrees || ty.dtype.is_some_and(|d| d != tensor.dtype()) {
                return Err(format!("the initializer \"{}\" is not of its type", value.name));
            }
        }
    }
    Ok(())
}

/// Whether sizes are what is declared; symbols stand for any size.
fn fits(declared: &[Dim], sizes: &[usize]) -> bool {
    let fits = |(d, size): (&Dim, &usize)| d.as_const().is_none_or(|_| d.as_usize() == Some(*size));
    declared.len() == sizes.len() && declared.iter().zip(sizes).all(fits)
}

fn check_captures(outer: &Graph, inner: &Graph) -> Result<(), String> {
    for capture in &inner.captures {
        let inside = matches!(inner.dag.node_weight(capture.inner.0), Some(Vertex::Value(_)));
        if !inside || !outer.contains_value(capture.outer) {
            return Err(format!("the subgraph \"{}\" captures a value that is gone", inner.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataType, Node, Tensor, ValueType};

    fn model() -> (Model, ValueId) {
        let mut graph = Graph::new("g");
        let x = graph.new_value("x", ValueType::Unknown);
        graph.inputs.push(x);
        let y = graph.add_op("y", Node::new("Neg", vec![Some(x)]));
        graph.outputs.push(y);
        (Model { graph, ..Model::default() }, y)
    }

    #[test]
    fn a_sound_graph_passes() {
        verify(&model().0).unwrap();
    }

    #[test]
    fn a_list_that_departs_from_the_edges_is_found() {
        let (mut model, y) = model();
        let (node, _) = model.graph.producer(y).unwrap();
        model.graph.node_mut(node).inputs.clear();
        assert!(verify(&model).unwrap_err().problem.contains("edges"));
    }

    #[test]
    fn a_value_that_nothing_writes_is_found() {
        let (mut model, y) = model();
        let (node, _) = model.graph.producer(y).unwrap();
        let ghost = model.graph.new_value("ghost", ValueType::Unknown);
        model.graph.set_input(node, 0, Some(ghost));
        assert!(verify(&model).unwrap_err().problem.contains("nothing writes"));
    }

    #[test]
    fn an_initializer_of_another_type_is_found() {
        let (mut model, y) = model();
        let (node, _) = model.graph.producer(y).unwrap();
        let c = model.graph.add_constant("c", Tensor::scalar(1.0f32));
        model.graph.set_input(node, 1, Some(c));
        model.graph.value_mut(c).constant = Some(Tensor::scalar(1i64));
        assert!(verify(&model).unwrap_err().problem.contains("not of its type"));
    }

    #[test]
    fn a_default_may_have_any_size_for_a_symbol() {
        let (mut model, _) = model();
        let x = model.graph.inputs[0];
        model.graph.value_mut(x).constant = Some(Tensor::from_vec(&[2, 3], vec![0.0f32; 6]));
        let mut declare = |dims: &[&str]| {
            let shape = dims.iter().map(|d| Dim::parse(d)).collect();
            model.graph.value_mut(x).ty = ValueType::tensor(DataType::F32, shape);
            verify(&model).is_ok()
        };
        assert!(declare(&["batch", "3"]) && declare(&["n", "n + 1"]) && declare(&["2", "3"]));
        assert!(!declare(&["batch", "4"]) && !declare(&["batch"]) && !declare(&["0", "3"]));
    }
}
