//! Types and shapes of a graph that is about to run.

use planish_ir::{Model, ValueType};
use planish_kernels::infer::{Facts, InferError, infer};

/// Infers types and shapes. Where they contradict what the file declares for inner values, the
/// declarations do not count: exporters get some of them wrong (onnxruntime-genai declares rank 0
/// for constants of rank 1), and the graph runs nonetheless.
///
/// # Errors
/// The first node whose inputs contradict each other.
pub(crate) fn infer_leniently(model: &Model) -> Result<Facts, InferError> {
    infer(model).or_else(|_| {
        let mut bare = model.clone();
        let graph = &mut bare.graph;
        let inner = |v: &_| graph.producer(*v).is_some() && !graph.is_output(*v);
        for value in graph.value_ids().filter(inner).collect::<Vec<_>>() {
            graph.value_mut(value).ty = ValueType::Unknown;
        }
        infer(&bare)
    })
}

#[cfg(test)]
mod tests {
    use planish_ir::{DataType, Dim, Graph, Node};

    use super::*;

    #[test]
    fn only_wrong_declarations_of_inner_values_are_overlooked() {
        let mut model = Model { graph: Graph::new("g"), ..Model::default() };
        model.set_opset("", 23);
        let graph = &mut model.graph;
        let x = graph.new_value("x", ValueType::tensor(DataType::F32, vec![Dim::from(3i64)]));
        graph.inputs.push(x);
        let inner = graph.add_op("inner", Node::new("Neg", vec![Some(x)]));
        let y = graph.add_op("y", Node::new("Neg", vec![Some(inner)]));
        graph.outputs.push(y);
        graph.value_mut(inner).ty = ValueType::tensor(DataType::F32, Vec::new());
        let facts = infer_leniently(&model).unwrap();
        assert_eq!(facts.shape(y), Some(&[Dim::from(3i64)][..]));
        model.graph.value_mut(y).ty = ValueType::tensor(DataType::F32, Vec::new());
        assert!(infer_leniently(&model).is_err());
    }
}
