//! Tests of lowering caches and of dropping padding masks.

use planish_ir::{Tensor, verify};

use super::super::drop_padding::drop_padding;
use super::super::testing::{input, model};
use super::super::{LOGITS_FROM, PAST_LENGTH};
use super::*;

/// What the graph under test is like.
#[derive(Default)]
struct Case {
    /// Bits of the quantisers of keys and values; 0 for none.
    bits: [i64; 2],
    /// Somebody asks for the shape of the past keys.
    asks_shape: bool,
    /// Somebody inside reads the present keys.
    reads_present: bool,
    /// Makes a mask of the attention mask and the token ids.
    mask: Option<fn(&mut Graph, ValueId, ValueId) -> ValueId>,
}

/// `[b, 1, 1, t]`: whether a key is no padding.
fn keys(graph: &mut Graph, mask: ValueId) -> ValueId {
    let cast = graph.add_op("cast", Node::new("Cast", vec![Some(mask)]).with("to", 9i64));
    let axes = graph.add_constant("axes", Tensor::from_vec(&[2], vec![1i64, 2]));
    graph.add_op("keys", Node::new("Unsqueeze", vec![Some(cast), Some(axes)]))
}

/// The canonical padding mask `[b, 1, s, t]`.
fn padding(graph: &mut Graph, mask: ValueId, ids: ValueId) -> ValueId {
    let keys = keys(graph, mask);
    let mut size = |of, axis: i64| {
        let node = Node::new("Shape", vec![Some(of)]).with("start", axis).with("end", axis + 1);
        Some(graph.add_op("size", node))
    };
    let (batch, rows, columns) = (size(ids, 0), size(ids, 1), size(mask, 1));
    let one = graph.add_constant("one", Tensor::from_vec(&[1], vec![1i64]));
    let shape = Node::new("Concat", vec![batch, Some(one), rows, columns]).with("axis", 0i64);
    let shape = graph.add_op("mask_shape", shape);
    graph.add_op("padding", Node::new("Expand", vec![Some(keys), Some(shape)]))
}

/// Something that is no mask of a known form.
fn odd(graph: &mut Graph, mask: ValueId, ids: ValueId) -> ValueId {
    let keys = keys(graph, mask);
    let axes = graph.add_constant("axes", Tensor::from_vec(&[2], vec![1i64, 3]));
    let ids = graph.add_op("rows", Node::new("Unsqueeze", vec![Some(ids), Some(axes)]));
    let rows = graph.add_op("odd", Node::new("Cast", vec![Some(ids)]).with("to", 9i64));
    graph.add_op("mask", Node::new("And", vec![Some(keys), Some(rows)]))
}

fn build(case: Case) -> Model {
    let mut model = model();
    let graph = &mut model.graph;
    let ids = input(graph, "input_ids", DataType::I64, &["b", "s"]);
    let mask = input(graph, "attention_mask", DataType::I64, &["b", "p + s"]);
    let q = input(graph, "q", DataType::F32, &["b", "s", "16"]);
    let mut kv = ["k", "v"].map(|name| input(graph, name, DataType::F32, &["b", "s", "8"]));
    let past = ["past.k", "past.v"].map(|n| input(graph, n, DataType::F32, &["b", "2", "p", "4"]));
    for (value, bits) in kv.iter_mut().zip(case.bits).filter(|(_, bits)| *bits > 0) {
        let node = Node::new("QuantizeDequantizeHeads", vec![Some(*value)]).with_domain(DOMAIN);
        let node = node.with("bits", bits).with("head_size", 4i64).with("clip_max", 0.5f32);
        *value = graph.add_op("grid", node);
    }
    let bias = case.mask.map(|make| make(graph, mask, ids));
    let inputs = vec![Some(q), Some(kv[0]), Some(kv[1]), bias, Some(past[0]), Some(past[1])];
    let node = Node::new("Attention", inputs)
        .with("q_num_heads", 4i64)
        .with("kv_num_heads", 2i64)
        .with("is_causal", 1i64);
    let outputs = graph.add_op_n("y", node, 3);
    graph.outputs.extend(&outputs);
    if case.asks_shape {
        let shape = graph.add_op("shape", Node::new("Shape", vec![Some(past[0])]));
        graph.outputs.push(shape);
    }
    if case.reads_present {
        let read = graph.add_op("read", Node::new("Neg", vec![Some(outputs[1])]));
        graph.outputs.push(read);
    }
    verify(&model).unwrap();
    model
}

/// The model after the pass, and how often it fired.
fn run(case: Case) -> (Model, usize) {
    let mut model = build(case);
    let n = lower_caches(&mut model, &mut PassContext::default()).unwrap();
    verify(&model).unwrap();
    (model, n)
}

fn cached(model: &Model) -> &Node {
    let graph = &model.graph;
    let id = graph.node_ids().find(|id| graph.node(*id).is_of(DOMAIN, "CachedAttention"));
    graph.node(id.expect("a lowered node"))
}

fn names(graph: &Graph, values: &[ValueId]) -> Vec<String> {
    values.iter().map(|v| graph.value(*v).name.clone()).collect()
}

#[test]
fn caches_leave_the_graph() {
    let (model, n) = run(Case::default());
    let graph = &model.graph;
    assert_eq!(n, 1);
    assert_eq!(names(graph, &graph.inputs), ["input_ids", "attention_mask", "q", "k", "v"]);
    assert_eq!(names(graph, &graph.outputs), ["y"]);
    let node = cached(&model);
    assert_eq!((node.inputs.len(), node.int("kv_bits", 0), node.int("is_causal", 0)), (3, 32, 1));
    assert_eq!(node.float("scale", 0.0), 0.5);
}

#[test]
fn quantisers_of_keys_and_values_become_the_format_of_the_cache() {
    let (model, _) = run(Case { bits: [4, 4], ..Case::default() });
    assert_eq!(model.graph.n_nodes(), 1);
    let node = cached(&model);
    assert_eq!((node.int("kv_bits", 0), node.float("value_clip_max", 0.0)), (4, 0.5));
    let (model, _) = run(Case { bits: [4, 8], ..Case::default() });
    assert_eq!((model.graph.n_nodes(), cached(&model).int("kv_bits", 0)), (3, 32));
}

#[test]
fn the_shape_of_the_past_is_made_of_its_length() {
    let (model, n) = run(Case { asks_shape: true, ..Case::default() });
    let graph = &model.graph;
    assert_eq!(n, 1);
    assert_eq!(names(graph, &graph.inputs).last().unwrap(), PAST_LENGTH);
    let shape = graph.producer_node(graph.outputs[1]).unwrap();
    assert!(shape.is("Concat"));
    let parts = names(graph, &shape.inputs.iter().flatten().copied().collect::<Vec<_>>());
    assert_eq!((parts.len(), parts[2].as_str()), (4, PAST_LENGTH));
    assert_ne!(PAST_LENGTH, LOGITS_FROM);
}

#[test]
fn a_padding_mask_becomes_a_mask_of_keys_and_can_be_dropped() {
    let (mut model, n) = run(Case { mask: Some(padding), ..Case::default() });
    assert_eq!(n, 1);
    let node = cached(&model);
    let mask = model.graph.producer_node(node.input(3).unwrap()).unwrap();
    assert_eq!((mask.op_type.as_str(), node.int("is_causal", 1)), ("Cast", 1));
    assert_eq!(drop_padding(&mut model, &mut PassContext::default()).unwrap(), 1);
    verify(&model).unwrap();
    assert_eq!((cached(&model).inputs.len(), model.graph.n_nodes()), (3, 1));
}

#[test]
fn what_is_not_understood_keeps_its_cache() {
    for case in [
        Case { mask: Some(odd), ..Case::default() },
        Case { reads_present: true, ..Case::default() },
    ] {
        let (model, n) = run(case);
        assert_eq!((n, model.graph.inputs.len()), (0, 7));
    }
}
