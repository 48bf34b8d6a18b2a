//! tract computes the same from the canonical form: RMSNormalization, RotaryEmbedding, Attention
//! with grouped heads, Swish and Gelu in an engine that knows nothing of how we lifted them.

mod common;

use common::{assert_close, assert_refused, expected, file_of, logits_of_written, thorough_models};
use planish_ir::{Dim, Graph, Model, NodeId, ValueType};
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;

/// The head size of all tiny models, which one of them does not declare.
const HEAD_SIZE: i64 = 16;

/// The models whose canonical form tract can't run, and its reason.
const REFUSED: [(&str, &str); 1] = [("gemma2-dynamo18", "Attention: softcap is not supported")];

#[test]
fn tract_agrees_about_the_canonical_form() {
    for tiny in thorough_models() {
        let mut model = planish_onnx::read_model(&file_of(&tiny)).unwrap();
        canonicalize(&mut model, &mut PassManager::new()).unwrap();
        let n_causal = drop_padding(&mut model.graph);
        declare_head_size(&mut model);
        let expected = expected(&tiny);
        let actual = logits_of_written(&model, &expected.ids);
        match REFUSED.iter().find(|(name, _)| *name == tiny.name) {
            Some((_, reason)) => assert_refused(&tiny.name, reason, &actual),
            None => {
                assert_eq!(n_causal, 2, "{}: causal attentions", tiny.name);
                assert_close(&tiny.name, &expected.logits, &actual.unwrap());
            }
        }
    }
}

/// Takes the padding masks away from causal attentions, as tract refuses boolean masks, and
/// nothing is padded here. Returns the number of attentions.
fn drop_padding(graph: &mut Graph) -> usize {
    let is_causal = |id: &NodeId| {
        let node = graph.node(*id);
        node.is("Attention") && node.int("is_causal", 0) == 1
    };
    let attentions: Vec<NodeId> = graph.node_ids().filter(is_causal).collect();
    for id in &attentions {
        graph.set_input(*id, 3, None);
    }
    graph.remove_dead();
    attentions.len()
}

/// Gives the caches among the inputs a last axis of known size.
fn declare_head_size(model: &mut Model) {
    for input in model.graph.inputs.clone() {
        let ValueType::Tensor(ty) = &mut model.graph.value_mut(input).ty else { continue };
        if let Some([_, _, _, size]) = ty.shape.as_deref_mut() {
            *size = Dim::from(HEAD_SIZE);
        }
    }
}
