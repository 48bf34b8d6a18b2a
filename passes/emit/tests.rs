//! Emitted models: their form here, their numbers against the models before.

use planish_ir::{Model, Node, ValueType};

use super::*;
use crate::quantize::{QuantizeOptions, quantize};
use crate::testing::{TinyDecoder, largest_difference, run};

fn quantized() -> Model {
    let mut model = TinyDecoder::default().build(3);
    quantize(&mut model, &QuantizeOptions::default(), None, &mut |_| {}).unwrap();
    model
}

#[test]
fn a_quantised_model_carries_exactly_the_functions_that_it_uses() {
    let mut model = quantized();
    model.set_opset("com.example", 1);
    assert_eq!(lower_for_opset(&mut model, EMITTED_OPSET), Ok(2));
    planish_ir::verify(&model).unwrap();
    let names: Vec<&str> = model.functions.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["DynamicQuantize", "QuantizeDequantizeHeads", "QuantizedMatMul"]);
    assert_eq!((model.opset("planish"), model.opset("")), (Some(1), Some(23)));
    assert_eq!(model.opset("com.example"), None);
    assert!(model.ir_version >= 10);
}

#[test]
fn emitting_twice_changes_nothing() {
    let mut model = quantized();
    lower_for_opset(&mut model, 23).unwrap();
    let n_nodes = model.graph.n_nodes();
    assert_eq!(lower_for_opset(&mut model, 23), Ok(0));
    assert_eq!((model.graph.n_nodes(), model.functions.len()), (n_nodes, 3));
}

#[test]
fn swish_is_lowered_for_23_and_kept_for_24() {
    let model = TinyDecoder::default().build(3);
    let before = run(&model);
    for (opset, n_lowered, n_swish) in [(23, 2, 0), (24, 0, 2)] {
        let mut lowered = model.clone();
        assert_eq!(lower_for_opset(&mut lowered, opset), Ok(n_lowered));
        let nodes = lowered.graph.node_ids().map(|id| lowered.graph.node(id));
        assert_eq!(nodes.filter(|node| node.is("Swish")).count(), n_swish);
        assert!(largest_difference(&before, &run(&lowered)) < 1e-6);
    }
}

#[test]
fn the_factor_of_swish_is_kept() {
    let mut model = TinyDecoder::default().build(3);
    let ids: Vec<_> = model.graph.node_ids().collect();
    for id in ids.into_iter().filter(|id| model.graph.node(*id).is("Swish")).collect::<Vec<_>>() {
        model.graph.node_mut(id).attributes.insert("alpha".into(), 1.7f32.into());
    }
    let before = run(&model);
    lower_for_opset(&mut model, 23).unwrap();
    assert!(largest_difference(&before, &run(&model)) < 1e-6);
}

#[test]
fn what_has_no_portable_form_is_refused_by_name() {
    let mut model = TinyDecoder::default().build(3);
    let logits = model.graph.outputs[0];
    let node = Node::new("Linear", vec![Some(logits)]).with_domain("planish").with_name("engine");
    let y = model.graph.add_op("y", node);
    model.graph.outputs.push(y);
    let node = "planish.Linear \"engine\"".to_owned();
    assert_eq!(lower_for_opset(&mut model, 23), Err(EmitError::NoFunction { node }));
}

#[test]
fn versions_that_would_change_a_meaning_are_refused() {
    let mut model = TinyDecoder::default().build(3);
    assert!(matches!(lower_for_opset(&mut model, 21), Err(EmitError::Opset { .. })));
    model.set_opset("", 18);
    assert!(matches!(lower_for_opset(&mut model, 23), Err(EmitError::Opset { .. })));
    model.set_opset("", 24);
    let lengths = model.graph.new_value("lengths", ValueType::Unknown);
    model.graph.inputs.push(lengths);
    let ids: Vec<_> = model.graph.node_ids().collect();
    let attention = ids.into_iter().find(|id| model.graph.node(*id).is("Attention")).unwrap();
    model.graph.set_input(attention, 6, Some(lengths));
    assert!(matches!(lower_for_opset(&mut model, 23), Err(EmitError::TooNew { needs: 24, .. })));
}
