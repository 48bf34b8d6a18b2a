//! How unlikely given tokens are, found where the logits are.

use planish_ir::{DataType, Dim, Model, Node, ValueId, ValueType};
use planish_kernels::DOMAIN;

use super::TARGETS;

/// Lets the graph score given tokens: a device then need not bring `logits` (`[batch, positions,
/// vocab]`) to the host for it. Adds the graph input [`TARGETS`] and returns a new graph output:
/// f32 `[batch, positions]`, the negative log-likelihood of each target, NaN where there is none.
pub fn add_scores(model: &mut Model, logits: ValueId) -> ValueId {
    let graph = &mut model.graph;
    let shape = match graph.value(logits).shape() {
        Some([batch, positions, _]) => vec![batch.clone(), positions.clone()],
        _ => ["n_sequences", "n_targets"].map(Dim::symbol).to_vec(),
    };
    let targets = graph.new_value(TARGETS, ValueType::tensor(DataType::I64, shape));
    graph.inputs.push(targets);
    let score = Node::new("NegativeLogLikelihood", vec![Some(logits), Some(targets)]);
    let scores = graph.add_op("planish.scores", score.with_domain(DOMAIN));
    graph.outputs.push(scores);
    debug_assert_eq!(planish_ir::verify(model), Ok(()));
    scores
}

#[cfg(test)]
mod tests {
    use planish_kernels::infer::infer;

    use super::super::testing::{input, model};
    use super::*;

    #[test]
    fn targets_become_an_input_and_scores_an_output() {
        let mut model = model();
        let logits = input(&mut model.graph, "logits", DataType::F16, &["b", "s", "9"]);
        let scores = add_scores(&mut model, logits);
        let (facts, graph) = (infer(&model).unwrap(), &model.graph);
        let targets = graph.find_value(TARGETS).unwrap();
        assert_eq!(graph.inputs, [logits, targets]);
        assert_eq!(graph.outputs, [scores]);
        let positions = Some(["b", "s"].map(Dim::parse).to_vec());
        for (value, dtype) in [(targets, DataType::I64), (scores, DataType::F32)] {
            assert_eq!(facts.get(value).dtype, Some(dtype));
            assert_eq!(facts.get(value).shape, positions);
        }
    }
}
