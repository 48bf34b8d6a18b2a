//! Models for ONNX Runtime's own operators: their form, and what comes back of them.

use std::collections::BTreeMap;

use planish_ir::{Dim, Tensor, ValueType};

use super::*;
use crate::PassManager;
use crate::canonicalize::canonicalize;
use crate::quantize::{BitWidths, Method, QuantizeOptions, quantize};
use crate::testing::{TinyDecoder, evaluate, largest_difference, run};

const LLAMA: fn() -> TinyDecoder =
    || TinyDecoder { hidden: 64, head_size: 16, ffn: 96, ..TinyDecoder::default() };

fn quantized(decoder: TinyDecoder, method: Method) -> Model {
    let mut model = decoder.build(3);
    let bits = BitWidths { weights: 4, activations: 16, kv: 16 };
    let options = QuantizeOptions { bits, method, ..QuantizeOptions::default() };
    quantize(&mut model, &options, None, &mut |_| {}).unwrap();
    model
}

fn lowered(mut model: Model) -> (Model, Interface) {
    let graph = &model.graph;
    let inputs = DecoderInputs {
        tokens: graph.inputs[0],
        mask: None,
        positions: Some(graph.inputs[1]),
        logits: graph.outputs[0],
    };
    let options = Contributed { accuracy_level: 4, n_positions: 20 };
    let interface = lower_for_onnxruntime(&mut model, inputs, options).unwrap();
    planish_ir::verify(&model).unwrap();
    (model, interface)
}

fn count(model: &Model) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for id in model.graph.node_ids() {
        *counts.entry(model.graph.node(id).op_type.as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn a_llama_becomes_the_operators_of_the_builder() {
    let (model, interface) = lowered(quantized(LLAMA(), Method::Rtn));
    let counts = count(&model);
    // Queries, keys and values are one product; the head is the eleventh.
    assert_eq!(counts["MatMulNBits"], 11);
    assert_eq!((counts["GroupQueryAttention"], counts["GatherBlockQuantized"]), (2, 1));
    let norms =
        (counts["SkipSimplifiedLayerNormalization"], counts["SimplifiedLayerNormalization"]);
    assert_eq!(norms, (4, 1));
    let of_codes = ["MatMul", "DequantizeLinear", "RotaryEmbedding", "Attention", "Add", "Split"];
    assert_eq!(of_codes.iter().find(|op| counts.contains_key(**op)), None, "{counts:?}");
    assert_eq!((model.opset(""), model.opset("com.microsoft")), (Some(21), Some(1)));
    let names: Vec<&str> =
        model.graph.inputs.iter().map(|v| model.graph.value(*v).name.as_str()).collect();
    let caches = ["key", "value"].map(|kind| format!("past_key_values.1.{kind}"));
    assert_eq!(names[3..5], caches);
    assert_eq!((names[0], names[5], names.len()), ("input_ids", "attention_mask", 6));
    assert_eq!((interface.heads, interface.hidden_size), ([4, 2, 16], 64));
    assert_eq!((interface.vocabulary, interface.n_layers), (64, 2));
    assert!(interface.shares_buffer && interface.positions.is_none());
    assert!(interface.notes.is_empty(), "{:?}", interface.notes);
}

#[test]
fn a_head_and_an_embedding_share_their_bytes() {
    let (model, _) = lowered(quantized(LLAMA(), Method::Rtn));
    let bytes_of = |op_type: &str, index: usize| {
        let nodes = model.graph.node_ids().map(|id| model.graph.node(id));
        let tensors = nodes.filter(|node| node.op_type == op_type);
        let tensors = tensors.filter_map(|node| model.graph.constant(node.input(index)?));
        tensors.map(|t| t.bytes().as_ptr() as usize).collect::<Vec<_>>()
    };
    let table = bytes_of("GatherBlockQuantized", 0)[0];
    assert!(bytes_of("MatMulNBits", 1).contains(&table));
    let scales = bytes_of("GatherBlockQuantized", 2)[0];
    assert!(bytes_of("MatMulNBits", 2).contains(&scales));
}

/// Prefill logits of the same tokens as [`run`]'s, of a model that was lowered.
fn logits_of(model: &Model) -> Vec<f32> {
    let ids: Vec<i64> = (0..10).map(|i| (3 + 17 * i) % 61).collect();
    let inputs = model.graph.inputs.iter().map(|v| {
        let value = model.graph.value(*v);
        match (value.name.as_str(), value.shape()) {
            ("input_ids", _) => Tensor::from_vec(&[2, 5], ids.clone()),
            ("attention_mask", _) => Tensor::from_vec(&[2, 5], vec![1i64; 10]),
            ("position_ids", _) => {
                Tensor::from_vec(&[2, 5], (0..10).map(|i| i % 5).collect::<Vec<i64>>())
            }
            (_, Some([_, heads, _, size])) => {
                let sizes = [heads, size].map(|dim| dim.as_usize().unwrap());
                Tensor::from_vec(&[2, sizes[0], 0, sizes[1]], Vec::<f32>::new())
            }
            other => panic!("{other:?}"),
        }
    });
    let inputs = inputs.collect();
    evaluate(model, inputs)[0].to_f32_vec().unwrap()
}

#[test]
fn what_was_lowered_comes_back_in_canonical_form() {
    for (decoder, method) in [
        (LLAMA(), Method::Rtn),
        (TinyDecoder { fused: true, bias: true, ..LLAMA() }, Method::Hadamard),
        (TinyDecoder { hidden: 64, head_size: 16, ..TinyDecoder::gpt2() }, Method::Hadamard),
        (TinyDecoder { tied: false, ..LLAMA() }, Method::Orthogonal),
    ] {
        let before = quantized(decoder, method);
        let (mut model, _) = lowered(before.clone());
        canonicalize(&mut model, &mut PassManager::new().with_verify()).unwrap();
        let counts = count(&model);
        assert_eq!(counts["Attention"], 2, "{counts:?}");
        let nodes = || model.graph.node_ids().map(|id| model.graph.node(id));
        assert_eq!(nodes().find(|node| node.domain == MICROSOFT).map(|n| n.describe()), None);
        let transforms = nodes().filter(|node| node.op_type.starts_with("Transform")).count();
        let had = before
            .graph
            .node_ids()
            .filter(|id| before.graph.node(*id).op_type.starts_with("Transform"));
        assert_eq!(transforms, had.count());
        let expected = run(&before)[0].clone();
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        let actual = logits_of(&model);
        let error = expected.iter().zip(&actual).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error <= 1e-4 * largest, "{decoder:?} by {method:?}: {error} of {largest}");
    }
}

#[test]
fn caches_of_16_bits_become_f32_at_the_boundary() {
    let mut model = quantized(LLAMA(), Method::Rtn);
    let before = lowered(model.clone()).0;
    let graph = &mut model.graph;
    let caches: Vec<ValueId> = graph.inputs.iter().skip(2).copied().collect();
    for input in caches {
        let users = graph.users(input);
        let wide = crate::half::cast_value(graph, input, planish_ir::DataType::F32);
        users.into_iter().for_each(|(user, at)| graph.set_input(user, at, Some(wide)));
        crate::half::set_dtype(graph.value_mut(input), planish_ir::DataType::F16);
    }
    let (model, interface) = lowered(model);
    assert_eq!(count(&model), count(&before));
    assert!(interface.shares_buffer);
    let is_f32 = |v: &ValueId| {
        let value = model.graph.value(*v);
        value.dtype() != Some(planish_ir::DataType::F16)
    };
    assert!(model.graph.inputs.iter().all(is_f32));
}

#[test]
fn an_attention_without_known_mask_stays_and_is_named() {
    let mut model = quantized(LLAMA(), Method::Rtn);
    let shape = ["batch", "1", "sequence", "total"].map(Dim::parse).to_vec();
    let ty = ValueType::tensor(planish_ir::DataType::F32, shape);
    let mask = model.graph.new_value("mask", ty);
    model.graph.inputs.push(mask);
    let attentions: Vec<NodeId> =
        model.graph.node_ids().filter(|id| model.graph.node(*id).is("Attention")).collect();
    for id in &attentions {
        model.graph.set_input(*id, 3, Some(mask));
        model.graph.node_mut(*id).attributes.insert("is_causal".into(), 0i64.into());
    }
    let (model, interface) = lowered(model);
    assert_eq!((count(&model)["Attention"], model.opset("")), (2, Some(23)));
    assert!(!interface.shares_buffer);
    assert_eq!((interface.n_layers, interface.notes.len()), (2, 2));
    assert!(interface.notes[0].contains("stays as it is"), "{:?}", interface.notes);
    assert_eq!(interface.positions.as_deref(), Some("position_ids"));
}

#[test]
fn groups_that_are_no_blocks_are_refused_with_the_node() {
    let mut model = LLAMA().build(3);
    let bits = BitWidths { weights: 4, activations: 16, kv: 16 };
    let options = QuantizeOptions { bits, group_size: Some(8), ..QuantizeOptions::default() };
    quantize(&mut model, &options, None, &mut |_| {}).unwrap();
    let inputs = DecoderInputs {
        tokens: model.graph.inputs[0],
        mask: None,
        positions: Some(model.graph.inputs[1]),
        logits: model.graph.outputs[0],
    };
    let options = Contributed { accuracy_level: 0, n_positions: 20 };
    let error = lower_for_onnxruntime(&mut model, inputs, options).unwrap_err().to_string();
    assert!(error.contains("groups of 8 channels"), "{error}");
}

#[test]
fn standard_operators_alone_compute_the_same() {
    let before = quantized(LLAMA(), Method::Orthogonal);
    let mut model = before.clone();
    crate::emit::lower_to_standard(&mut model, 23).unwrap();
    let own = model.graph.node_ids().find(|id| !model.graph.node(*id).domain.is_empty());
    assert_eq!((own, model.functions.len()), (None, 0));
    assert!(largest_difference(&run(&before), &run(&model)) < 1e-4);
    let n_transforms = |model: &Model| {
        let nodes = model.graph.node_ids().map(|id| model.graph.node(id));
        nodes.filter(|node| node.op_type.starts_with("Transform")).count()
    };
    canonicalize(&mut model, &mut PassManager::new().with_verify()).unwrap();
    assert_eq!(n_transforms(&model), n_transforms(&before));
}
