//! The likeliest next token, found where the logits are.

use planish_ir::{Model, Node, ValueId};

/// Graph outputs that [`add_likeliest`] adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likeliest {
    /// INT64 `[batch, positions, 1]`: where the largest logit of each position is, the first of
    /// equals; NaN counts as the largest (ONNX ArgMax).
    pub token: ValueId,
    /// That logit, of the logits' type, `[batch, positions, 1]` (ONNX GatherElements).
    pub logit: ValueId,
}

/// Lets the graph choose tokens greedily: a device then need not bring all `logits` (`[batch,
/// positions, vocab]`) to the host for it.
pub fn add_likeliest(model: &mut Model, logits: ValueId) -> Likeliest {
    let graph = &mut model.graph;
    let arg = Node::new("ArgMax", vec![Some(logits)]).with("axis", -1i64).with("keepdims", 1i64);
    let token = graph.add_op("planish.likeliest_token", arg);
    let take = Node::new("GatherElements", vec![Some(logits), Some(token)]).with("axis", -1i64);
    let logit = graph.add_op("planish.likeliest_logit", take);
    graph.outputs.extend([token, logit]);
    debug_assert_eq!(planish_ir::verify(model), Ok(()));
    Likeliest { token, logit }
}

#[cfg(test)]
mod tests {
    use planish_ir::DataType;
    use planish_kernels::infer::infer;

    use super::super::testing::{input, model};
    use super::*;

    #[test]
    fn token_and_logit_become_outputs() {
        let mut model = model();
        let logits = input(&mut model.graph, "logits", DataType::F32, &["b", "s", "9"]);
        let likeliest = add_likeliest(&mut model, logits);
        let facts = infer(&model).unwrap();
        assert_eq!(model.graph.outputs, [likeliest.token, likeliest.logit]);
        assert_eq!(facts.get(likeliest.token).dtype, Some(DataType::I64));
        assert_eq!(facts.get(likeliest.logit).dtype, Some(DataType::F32));
        assert_eq!(facts.get(likeliest.token).dim(2).and_then(|d| d.as_const()), Some(1));
    }
}
