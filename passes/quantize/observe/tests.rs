//! What the added outputs hold.

use std::collections::HashMap;

use planish_ir::{Model, Tensor, ValueId};

use super::*;
use crate::interpret::Interpreter;
use crate::quantize::{Hessian, QuantizeError, QuantizeOptions, quantize};
use crate::sites::Layout;
use crate::testing::{TinyDecoder, evaluate};

fn inputs(model: &Model) -> Vec<Tensor> {
    let graph = &model.graph;
    let ids = Tensor::from_vec(&[2, 4], vec![1i64, 5, 9, 2, 33, 60, 12, 7]);
    let positions = Tensor::from_vec(&[2, 4], [0i64, 1, 2, 3].repeat(2));
    let past = graph.inputs[2..].iter().map(|input| {
        let shape = graph.value(*input).shape().unwrap();
        let size = |axis: usize| shape[axis].as_usize().unwrap();
        Tensor::from_vec(&[2, size(1), 0, size(3)], Vec::<f32>::new())
    });
    [ids, positions].into_iter().chain(past).collect()
}

/// A value of the model by name.
fn value(model: &Model, name: &str) -> Tensor {
    let graph = &model.graph;
    let known: HashMap<ValueId, Tensor> = graph.inputs.iter().copied().zip(inputs(model)).collect();
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let mut interpreter = Interpreter::new(graph, &opset, known);
    interpreter.value(graph.find_value(name).unwrap()).unwrap()
}

/// What was observed, each with its site's id.
fn grams(model: &Model, layout: &Layout, sites: &[SiteId]) -> Vec<(SiteId, Hessian)> {
    let observed = observe_hessians(model, layout, sites).unwrap();
    planish_ir::verify(&observed.model).unwrap();
    let outputs = evaluate(&observed.model, inputs(model));
    let added = &outputs[model.graph.outputs.len()..];
    assert_eq!(added.len(), observed.outputs.len());
    let hessian = |tensor: &Tensor| {
        let mut hessian = Hessian::new(tensor.shape()[0]);
        hessian.add(tensor).unwrap();
        hessian
    };
    observed.outputs.iter().zip(added).map(|((id, _), tensor)| (*id, hessian(tensor))).collect()
}

fn assert_close(a: &Hessian, b: &Hessian) {
    let largest = b.elements().iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let pairs = a.elements().iter().zip(b.elements());
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert_eq!(a.n_channels(), b.n_channels());
    assert!(difference < 1e-5 * largest, "{difference} of {largest}");
}

#[test]
fn hessians_are_of_what_the_chosen_sites_read() {
    let model = TinyDecoder { bias: true, ..TinyDecoder::default() }.build(7);
    let layout = Layout::new(&model).unwrap();
    let sites = [SiteId(3), SiteId(0)];
    let grams = grams(&model, &layout, &sites);
    assert_eq!(grams.iter().map(|(id, _)| *id).collect::<Vec<_>>(), sites);
    for (id, hessian) in grams {
        let site = layout.site(id);
        let x = value(&model, &model.graph.value(site.input).name).to_f32_vec().unwrap();
        assert_close(&hessian, &Hessian::of_rows(&x, site.channels));
    }
}

/// Sites of a model whose activations are quantised: before their weights are and after.
#[test]
fn where_activations_are_quantised_hessians_are_of_codes_times_scale() {
    for (bits, group_size) in [("w16a4kv16", None), ("w4a4kv16", None), ("w4a4kv16", Some(16))] {
        let mut model = TinyDecoder { bias: true, ..TinyDecoder::default() }.build(7);
        let layout = Layout::new(&model).unwrap();
        let options = QuantizeOptions {
            bits: bits.parse().unwrap(),
            group_size,
            lm_head_bits: 16,
            ..QuantizeOptions::default()
        };
        quantize(&mut model, &options, None, &mut |_| {}).unwrap();
        let name = |index| {
            let graph = &model.graph;
            let mut nodes = graph.topological_order().unwrap().into_iter();
            let first = nodes.find(|id| graph.node(*id).op_type == "DynamicQuantize").unwrap();
            graph.value(graph.node(first).output(index).unwrap()).name.clone()
        };
        let [codes, scale] = [0, 1].map(|i| value(&model, &name(i)).to_f32_vec().unwrap());
        let x: Vec<f32> = codes.iter().enumerate().map(|(i, c)| c * scale[i / 48]).collect();
        let (_, hessian) = grams(&model, &layout, &[SiteId(0)]).remove(0);
        assert_close(&hessian, &Hessian::of_rows(&x, 48));
    }
}

#[test]
fn sites_of_another_model_are_refused() {
    let model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let error = observe_hessians(&model, &layout, &[SiteId(99)]).unwrap_err();
    assert!(matches!(error, QuantizeError::StaleLayout { .. }));
    let empty = Model::default();
    assert!(observe_hessians(&empty, &layout, &[SiteId(0)]).is_err());
}
