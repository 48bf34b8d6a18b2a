//! Quantising whole decoders.

mod learned;

use planish_ir::{Attribute, DataType, Model, Tensor};

use super::*;
use crate::sites::Layout;
use crate::testing::{TinyDecoder, evaluate, largest_difference, mean_difference, run};

fn options(bits: &str) -> QuantizeOptions {
    QuantizeOptions { bits: bits.parse().unwrap(), ..QuantizeOptions::default() }
}

fn quantized(decoder: TinyDecoder, options: &QuantizeOptions) -> (Model, QuantizeReport) {
    let mut model = decoder.build(7);
    let report = quantize(&mut model, options, None, &mut |_| {}).unwrap();
    (model, report)
}

fn count(model: &Model, op_type: &str) -> usize {
    let nodes = model.graph.node_ids().map(|id| model.graph.node(id));
    nodes.filter(|node| node.op_type == op_type).count()
}

/// How far the quantised model's logits are from the model's, in the mean.
fn distance(decoder: TinyDecoder, options: &QuantizeOptions) -> f32 {
    mean_difference(&run(&decoder.build(7)), &run(&quantized(decoder, options).0))
}

#[test]
fn each_site_quantises_its_activation_once() {
    let (model, report) = quantized(TinyDecoder::default(), &options("w4a4kv4"));
    assert_eq!(count(&model, "DynamicQuantize"), 8);
    assert_eq!(count(&model, "QuantizedMatMul"), 14);
    assert_eq!(count(&model, "QuantizeDequantizeHeads"), 4);
    assert_eq!(count(&model, "MatMul"), 1, "the head");
    assert_eq!((report.n_linears, report.n_left_alone), (14, 0));
    assert!(report.weight_bytes_after * 4 < report.weight_bytes_before, "{report:?}");
    assert!(report.weight_error > 1e-4 && report.weight_error < 0.05, "{report:?}");
}

#[test]
fn transforms_become_one_operator_with_the_quantiser() {
    let options = QuantizeOptions { method: Method::Hadamard, ..options("w4a8kv8") };
    let (model, _) = quantized(TinyDecoder::default(), &options);
    assert_eq!(count(&model, "TransformQuantize"), 6);
    assert_eq!(count(&model, "TransformLeftQuantize"), 2);
    assert_eq!(count(&model, "Transform") + count(&model, "TransformLeft"), 0);
    assert_eq!(count(&model, "TransformHeads"), 4);
}

#[test]
fn eight_bits_come_close_in_every_form() {
    for bits in ["w8a8kv8", "w8a16kv16", "w16a8kv16", "w16a16kv8"] {
        for method in [Method::Rtn, Method::Hadamard, Method::Orthogonal] {
            for decoder in [
                TinyDecoder { fused: true, bias: true, ..TinyDecoder::default() },
                TinyDecoder::gpt2(),
            ] {
                let options = QuantizeOptions { method, ..options(bits) };
                let distance = distance(decoder, &options);
                assert!(distance > 1e-5 && distance < 0.1, "{bits} {method:?}: {distance}");
            }
        }
    }
}

#[test]
fn sixteen_bits_leave_the_numbers_alone() {
    let options =
        QuantizeOptions { lm_head_bits: 16, method: Method::Hadamard, ..options("w16a16kv16") };
    assert_eq!(distance(TinyDecoder::default(), &options), 0.0);
}

#[test]
fn rotations_help_where_channels_have_outliers() {
    let of = |method| {
        distance(TinyDecoder::default(), &QuantizeOptions { method, ..options("w16a4kv16") })
    };
    let (rtn, hadamard) = (of(Method::Rtn), of(Method::Hadamard));
    assert!(hadamard < 0.6 * rtn, "{rtn} {hadamard}");
}

#[test]
fn groups_come_closer_than_whole_channels() {
    let grouped = |group_size| {
        distance(TinyDecoder::default(), &QuantizeOptions { group_size, ..options("w4a16kv16") })
    };
    assert!(grouped(Some(8)) < grouped(None));
    let with_activations = QuantizeOptions { group_size: Some(16), ..options("w4a8kv16") };
    let (model, _) = quantized(TinyDecoder::default(), &with_activations);
    assert_eq!(count(&model, "BlockQuantizedMatMul"), 14);
    assert!(distance(TinyDecoder::default(), &with_activations) < 0.3);
}

#[test]
fn a_group_size_that_does_not_divide_is_refused_with_the_layer() {
    let mut model = TinyDecoder::default().build(7);
    let options = QuantizeOptions { group_size: Some(32), ..options("w4a16kv16") };
    let error = quantize(&mut model, &options, None, &mut |_| {}).unwrap_err().to_string();
    let expected = "a group size of 32 does not divide the 48 input channels of MatMul \"q\"";
    assert_eq!(error, expected);
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let mut model = TinyDecoder::default().build(7);
    let weight = Layout::new(&model).unwrap().linears[9].weight;
    let mut data = vec![0.5f32; 48 * 24];
    data[100] = f32::NAN;
    model.graph.value_mut(weight).constant = Some(Tensor::from_vec(&[48, 24], data));
    let name = model.graph.value(weight).name.clone();
    let error = quantize(&mut model, &options("w4a4kv4"), None, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains(&format!("the weight \"{name}\"")), "{error}");
}

#[test]
fn a_model_without_linear_layers_is_refused() {
    let mut model = Model::default();
    let error = quantize(&mut model, &options("w4a4kv4"), None, &mut |_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::NoLinears(_)));
}

#[test]
fn a_tied_head_and_the_embedding_share_their_codes() {
    let (model, _) = quantized(TinyDecoder::default(), &options("w16a16kv8"));
    let graph = &model.graph;
    assert!(graph.find_value("embed").is_none());
    let codes = graph.find_value("embed_quantized").unwrap();
    assert_eq!(graph.value(codes).dtype(), Some(DataType::I8));
    let users: Vec<String> =
        graph.users(codes).iter().map(|(id, _)| graph.node(*id).op_type.clone()).collect();
    assert_eq!(users, ["DequantizeLinear", "Gather"].map(String::from));
}

#[test]
fn head_and_embedding_stay_as_they_are_unless_asked() {
    let options = QuantizeOptions { lm_head_bits: 16, ..options("w4a4kv4") };
    let (model, _) = quantized(TinyDecoder::default(), &options);
    let embed = model.graph.find_value("embed").unwrap();
    assert_eq!(model.graph.constant(embed).unwrap().dtype(), DataType::F32);
    assert_eq!(model.graph.users(embed).len(), 2);
}

#[test]
fn the_embedding_of_an_untied_head_is_never_quantised() {
    for lm_head_bits in [4, 8] {
        let options = QuantizeOptions { lm_head_bits, ..options("w4a4kv4") };
        let (model, _) = quantized(TinyDecoder { tied: false, ..TinyDecoder::default() }, &options);
        let embed = model.graph.find_value("embed").unwrap();
        assert_eq!(model.graph.constant(embed).unwrap().dtype(), DataType::F32);
        assert!(model.graph.find_value("lm_head").is_none());
        assert!(model.graph.find_value("lm_head_quantized").is_some());
    }
}

#[test]
fn a_tied_head_of_four_bits_is_refused() {
    let mut model = TinyDecoder::default().build(7);
    let options = QuantizeOptions { lm_head_bits: 4, ..options("w4a4kv4") };
    let error = quantize(&mut model, &options, None, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("tied to the embedding"), "{error}");
}

/// The inputs of a prefill.
fn prompt(model: &Model) -> Vec<Tensor> {
    let ids = Tensor::from_vec(&[2, 4], vec![1i64, 5, 9, 2, 33, 60, 12, 7]);
    let positions = Tensor::from_vec(&[2, 4], [0i64, 1, 2, 3].repeat(2));
    let past = (2..model.graph.inputs.len()).map(|i| {
        let shape = model.graph.value(model.graph.inputs[i]).shape().unwrap();
        let size = |axis: usize| shape[axis].as_usize().unwrap();
        Tensor::from_vec(&[2, size(1), 0, size(3)], Vec::<f32>::new())
    });
    [ids, positions].into_iter().chain(past).collect()
}

/// Statistics of a prefill, as an engine would collect them.
fn collect(model: &Model) -> CalibrationStats {
    let layout = Layout::new(model).unwrap();
    let observed = observe(model, &layout).unwrap();
    let n_outputs = model.graph.outputs.len();
    let outputs = evaluate(&observed.model, prompt(model));
    let mut stats = CalibrationStats::default();
    for ((site, _), output) in observed.outputs.iter().zip(&outputs[n_outputs..]) {
        stats.update(*site, output).unwrap();
    }
    stats
}

#[test]
fn smooth_scales_leave_the_numbers_alone_without_rounding() {
    for decoder in [TinyDecoder { bias: true, ..TinyDecoder::default() }, TinyDecoder::gpt2()] {
        let mut model = decoder.build(7);
        let (before, stats) = (run(&model), collect(&model));
        let method = Method::SmoothQuant { alpha: 0.5 };
        let options = QuantizeOptions { method, lm_head_bits: 16, ..options("w16a16kv16") };
        quantize(&mut model, &options, Some(&stats), &mut |_| {}).unwrap();
        assert_eq!(count(&model, "Transform"), 0);
        assert!(largest_difference(&before, &run(&model)) < 1e-5);
    }
}

#[test]
fn smooth_scales_help_where_channels_have_outliers() {
    let model = TinyDecoder::default().build(7);
    let (before, stats) = (run(&model), collect(&model));
    let of = |method| {
        let mut model = model.clone();
        let options = QuantizeOptions { method, lm_head_bits: 16, ..options("w8a8kv16") };
        quantize(&mut model, &options, Some(&stats), &mut |_| {}).unwrap();
        mean_difference(&before, &run(&model))
    };
    let (rtn, smooth) = (of(Method::Rtn), of(Method::SmoothQuant { alpha: 0.5 }));
    assert!(smooth < rtn, "{rtn} {smooth}");
}

#[test]
fn smooth_scales_need_ranges() {
    let mut model = TinyDecoder::default().build(7);
    let method = Method::SmoothQuant { alpha: 0.5 };
    let options = QuantizeOptions { method, ..options("w8a8kv16") };
    let error = quantize(&mut model, &options, None, &mut |_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::MissingStats { .. }), "{error}");
}

#[test]
fn observed_ranges_are_the_largest_of_all_runs() {
    let mut stats = CalibrationStats::default();
    let site = crate::sites::SiteId(2);
    stats.update(site, &Tensor::from_vec(&[2], vec![1.0f32, 5.0])).unwrap();
    stats.update(site, &Tensor::from_vec(&[2], vec![3.0f32, 2.0])).unwrap();
    assert_eq!(stats.channel_max(site), Some([3.0, 5.0].as_slice()));
    assert_eq!(stats.channel_max(crate::sites::SiteId(1)), None);
}

#[test]
fn progress_ends_with_all_done() {
    let mut seen = Vec::new();
    let mut model = TinyDecoder::default().build(7);
    let notes =
        quantize(&mut model, &options("w4a4kv4"), None, &mut |p| seen.push((p.done, p.total)));
    assert_eq!(seen, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    assert_eq!(notes.unwrap().notes, Vec::<String>::new());
}

#[test]
fn the_cache_is_rounded_per_head() {
    let (model, _) = quantized(TinyDecoder::default(), &options("w16a16kv4"));
    let nodes = model.graph.node_ids().map(|id| model.graph.node(id));
    let heads: Vec<_> = nodes.filter(|n| n.op_type == "QuantizeDequantizeHeads").collect();
    assert_eq!(heads.len(), 4);
    let int = |name: &str| heads[0].attributes.get(name).and_then(Attribute::as_int);
    assert_eq!((int("bits"), int("head_size")), (Some(4), Some(12)));
}
