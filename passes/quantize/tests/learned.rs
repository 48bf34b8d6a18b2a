//! Quantising with what was learned: clips, Hessians, other weights.

use planish_ir::{Model, NodeId, Tensor};

use super::*;
use crate::sites::{AttentionId, LinearId, SiteId};
use crate::testing::run;
use crate::transform::{TransformSet, insert_transforms};

/// Clips of all kinds, different everywhere.
fn clips(layout: &Layout) -> Clips {
    let clip = |i: usize| Some(Clip { max: 0.9 - 0.02 * i as f32, min: 0.8 + 0.02 * i as f32 });
    let factors = |n: usize, first: f32| (0..n).map(|j| first - 0.001 * j as f32).collect();
    let weights = layout.linears.iter().map(|linear| {
        let n = linear.out_features;
        Some(WeightClip { max: factors(n, 0.9), min: factors(n, 0.8) })
    });
    Clips {
        activations: (0..layout.sites.len()).map(clip).collect(),
        keys: (0..layout.attentions.len()).map(|i| clip(i + 1)).collect(),
        values: (0..layout.attentions.len()).map(|i| clip(i + 3)).collect(),
        weights: weights.collect(),
    }
}

fn calibrated(model: &mut Model, calibration: &Calibration, options: &QuantizeOptions) {
    let layout = Layout::new(model).unwrap();
    quantize_with(model, &layout, calibration, options, &mut |_| {}).unwrap();
}

fn transforms(model: &Model, layout: &Layout, options: &QuantizeOptions) -> TransformSet {
    transforms_of(&model.graph, layout, options, None).unwrap()
}

/// `clip_max` and `clip_min` of the nodes of one type, in topological order.
fn attributes(model: &Model, is_one: impl Fn(&str) -> bool) -> Vec<Clip> {
    let graph = &model.graph;
    let nodes = graph.topological_order().unwrap().into_iter().map(|id| graph.node(id));
    let clip = |node: &planish_ir::Node| Clip {
        max: node.float("clip_max", 1.0),
        min: node.float("clip_min", 1.0),
    };
    nodes.filter(|node| is_one(&node.op_type)).map(clip).collect()
}

#[test]
fn clips_are_attributes_of_the_operators_that_quantise() {
    for method in [Method::Rtn, Method::Hadamard] {
        let mut model = TinyDecoder::default().build(7);
        let layout = Layout::new(&model).unwrap();
        let options = QuantizeOptions { method, ..options("w4a4kv4") };
        let clips = clips(&layout);
        let transforms = transforms(&model, &layout, &options);
        let calibration =
            Calibration { transforms, clips: clips.clone(), ..Calibration::default() };
        calibrated(&mut model, &calibration, &options);
        let of_sites = attributes(&model, |op| {
            ["DynamicQuantize", "TransformQuantize", "TransformLeftQuantize"].contains(&op)
        });
        let expected: Vec<Clip> = clips.activations.iter().map(|clip| clip.unwrap()).collect();
        assert_eq!(of_sites, expected);
        let graph = &model.graph;
        for (i, site) in layout.attentions.iter().enumerate() {
            let (id, attention) = (AttentionId(i), graph.node(site.node));
            for (input, clip) in [(1, clips.key(id)), (2, clips.value(id))] {
                let node = graph.producer_node(attention.input(input).unwrap()).unwrap();
                assert_eq!(node.op_type, "QuantizeDequantizeHeads");
                assert_eq!(node.float("clip_max", 1.0), clip.max);
                assert_eq!(node.float("clip_min", 1.0), clip.min);
            }
        }
    }
}

/// The scales of a layer in a quantised model.
fn scales(model: &Model, layout: &Layout, id: LinearId) -> Vec<f32> {
    let graph = &model.graph;
    let (node, _) = graph.producer(layout.linear(id).output).unwrap();
    graph.constant(graph.node(node).input(3).unwrap()).unwrap().to_f32_vec().unwrap()
}

#[test]
fn weight_clips_are_of_the_transformed_weight_and_take_the_place_of_the_search() {
    let mut model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let options = QuantizeOptions { method: Method::Hadamard, ..options("w4a8kv4") };
    let transforms = transforms(&model, &layout, &options);
    let mut transformed = model.clone();
    insert_transforms(&mut transformed, &layout, &transforms).unwrap();
    let clips = clips(&layout);
    let calibration = Calibration { transforms, clips: clips.clone(), ..Calibration::default() };
    calibrated(&mut model, &calibration, &options);
    for (i, linear) in layout.linears.iter().enumerate() {
        let weight = transformed.graph.node(linear.node).input(1).unwrap();
        let weight = transformed.graph.constant(weight).unwrap().to_f32_vec().unwrap();
        let clip = clips.weight(LinearId(i)).unwrap();
        let expected = |j: usize| {
            let column = weight.iter().skip(j).step_by(linear.out_features);
            let (low, high) = column.fold((0.0f32, 0.0f32), |(l, h), x| (l.min(*x), h.max(*x)));
            (clip.max[j] * high).max(-clip.min[j] * low) / 7.0
        };
        let expected: Vec<f32> = (0..linear.out_features).map(expected).collect();
        assert_eq!(scales(&model, &layout, LinearId(i)), expected);
    }
}

#[test]
fn clips_of_one_change_nothing() {
    let options = QuantizeOptions { clip_search: false, ..options("w4a4kv4") };
    let model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let mut ones = clips(&layout);
    for list in [&mut ones.activations, &mut ones.keys, &mut ones.values] {
        list.iter_mut().for_each(|clip| *clip = Some(Clip::default()));
    }
    for clip in ones.weights.iter_mut().flatten() {
        clip.max.iter_mut().chain(&mut clip.min).for_each(|x| *x = 1.0);
    }
    let run_with = |clips: Clips| {
        let mut model = model.clone();
        calibrated(&mut model, &Calibration { clips, ..Calibration::default() }, &options);
        run(&model)
    };
    assert_eq!(run_with(ones), run_with(Clips::default()));
    assert_ne!(run_with(clips(&layout)), run_with(Clips::default()));
}

#[test]
fn clips_that_do_not_fit_are_refused_by_their_place() {
    let model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let refusal = |change: &dyn Fn(&mut Clips)| {
        let mut clips = clips(&layout);
        change(&mut clips);
        let calibration = Calibration { clips, ..Calibration::default() };
        let mut model = model.clone();
        let options = options("w4a4kv4");
        let result = quantize_with(&mut model, &layout, &calibration, &options, &mut |_| {});
        result.unwrap_err().to_string()
    };
    let bad = Some(Clip { max: f32::NAN, min: 1.0 });
    let error = refusal(&|clips| clips.activations[1] = bad);
    assert!(error.starts_with("the clips of the site of MatMul \"o\" are not positive"), "{error}");
    let error = refusal(&|clips| clips.values[0] = Some(Clip { max: 1.0, min: -0.5 }));
    assert!(error.contains("Attention") && error.contains("-0.5"), "{error}");
    let error = refusal(&|clips| clips.weights[2].as_mut().unwrap().max.truncate(5));
    assert_eq!(error, "the weight \"v_weight\" has 24 scales, but 5 were given");
}

/// The Hessians of all sites of the model as it is now.
fn hessians(model: &Model, layout: &Layout) -> Hessians {
    let sites: Vec<SiteId> = layout.site_ids().collect();
    let observed = observe_hessians(model, layout, &sites).unwrap();
    let n_outputs = model.graph.outputs.len();
    let outputs = evaluate(&observed.model, prompt(model));
    let mut hessians = Hessians::default();
    for ((site, _), gram) in observed.outputs.iter().zip(&outputs[n_outputs..]) {
        hessians.update(*site, gram).unwrap();
    }
    hessians
}

#[test]
fn gptq_comes_closer_than_rounding_to_nearest() {
    let model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let logits = |model: &Model| evaluate(model, prompt(model))[0].to_f32_vec().unwrap();
    let before = logits(&model);
    for (bits, group_size) in [("w4a16", None), ("w3a16", None), ("w3a16", Some(8))] {
        let error = |rounding| {
            let options =
                QuantizeOptions { rounding, group_size, lm_head_bits: 16, ..options(bits) };
            let calibration =
                Calibration { hessians: hessians(&model, &layout), ..Calibration::default() };
            let mut model = model.clone();
            calibrated(&mut model, &calibration, &options);
            let pairs = before.iter().zip(logits(&model));
            pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>()
        };
        let (nearest, gptq) = (error(Rounding::Nearest), error(Rounding::GPTQ));
        assert!(gptq < 0.5 * nearest, "{bits} {group_size:?}: {gptq} {nearest}");
    }
}

#[test]
fn groups_can_be_quantised_by_what_those_before_them_became() {
    let mut model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let options =
        QuantizeOptions { rounding: Rounding::GPTQ, weighted_search: true, ..options("w4a8kv4") };
    let mut quantizer = ModelQuantizer::new(&mut model, &layout, &options).unwrap();
    assert_eq!(quantizer.n_groups(), 2);
    for index in 0..2 {
        let hessians = hessians(quantizer.model(), &layout);
        let calibration = Calibration { hessians, ..Calibration::default() };
        quantizer.quantize_group(index, &calibration).unwrap();
        let again = quantizer.quantize_group(index, &calibration).unwrap_err();
        assert!(matches!(again, QuantizeError::NoSuchGroup { n_groups: 2, .. }));
    }
    let report = quantizer.finish().unwrap();
    assert_eq!(report.n_linears, 14);
    assert_eq!(count(&model, "QuantizedMatMul"), 14);
    let distance = mean_difference(&run(&TinyDecoder::default().build(7)), &run(&model));
    assert!(distance > 1e-3 && distance < 0.3, "{distance}");
}

#[test]
fn gptq_needs_hessians_that_fit() {
    let model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let options = QuantizeOptions { rounding: Rounding::GPTQ, ..options("w4a4kv4") };
    let refusal = |hessians: Hessians| {
        let calibration = Calibration { hessians, ..Calibration::default() };
        let mut model = model.clone();
        quantize_with(&mut model, &layout, &calibration, &options, &mut |_| {}).unwrap_err()
    };
    let error = refusal(Hessians::default()).to_string();
    assert!(error.contains("needs the Hessian of the site of MatMul \"q\""), "{error}");
    let with = |hessian| {
        let mut hessians = Hessians::default();
        hessians.insert(SiteId(0), hessian);
        refusal(hessians)
    };
    let error = with(Hessian::new(47));
    assert!(matches!(error, QuantizeError::HessianSize { expected: 48, actual: 47, .. }));
    let error = with(Hessian::of_rows(&[f32::NAN; 48], 48));
    assert!(matches!(error, QuantizeError::Hessian { .. }), "{error}");
}

#[test]
fn few_bits_are_stored_as_four_and_the_report_says_so() {
    for (bits, codes) in [("w3a16", -4..=3), ("w2a8kv8", -2..=1)] {
        let options = QuantizeOptions { lm_head_bits: 16, group_size: Some(8), ..options(bits) };
        let (model, report) = quantized(TinyDecoder::default(), &options);
        let note = format!("weights of {} bits are stored in 4 bits each", &bits[1..2]);
        assert!(report.notes[0].starts_with(&note), "{report:?}");
        let values = model.graph.value_ids().filter_map(|id| model.graph.constant(id));
        let packed: Vec<&Tensor> = values.filter(|t| t.dtype() == DataType::I4).collect();
        assert_eq!(packed.len(), 14);
        let mut all = packed.iter().flat_map(|tensor| tensor.to_i64_vec().unwrap());
        assert!(all.all(|code| codes.contains(&code)));
    }
    let error = |bits| {
        let options = QuantizeOptions { group_size: Some(8), ..options(bits) };
        quantized(TinyDecoder::default(), &options).1.weight_error
    };
    assert!(error("w4a16") < 0.5 * error("w3a16") && error("w3a16") < 0.5 * error("w2a16"));
}

/// A decoder whose layers of queries in both blocks have one weight, and those layers.
fn sharing() -> (Model, Layout, [LinearId; 2]) {
    let mut model = TinyDecoder::default().build(7);
    let layout = Layout::new(&model).unwrap();
    let is_query = |id: &LinearId| layout.linear(*id).out_features == 48 && id.0.is_multiple_of(7);
    let queries: Vec<LinearId> = (0..14).map(LinearId).filter(is_query).collect();
    let [first, second]: [LinearId; 2] = queries.try_into().unwrap();
    let weight = layout.linear(first).weight;
    model.graph.set_input(layout.linear(second).node, 1, Some(weight));
    let layout = Layout::new(&model).unwrap();
    (model, layout, [first, second])
}

#[test]
fn a_replaced_weight_is_that_of_one_layer_only() {
    let (mut model, mut layout, [first, second]) = sharing();
    let shared = model.graph.constant(layout.linear(first).weight).unwrap().clone();
    let weight = Tensor::from_vec(&[48, 48], vec![0.25f32; 48 * 48]);
    replace_weight(&mut model, &mut layout, second, weight.clone()).unwrap();
    planish_ir::verify(&model).unwrap();
    let read = |model: &Model, id: LinearId| {
        let value = model.graph.node(layout.linear(id).node).input(1).unwrap();
        assert_eq!(value, layout.linear(id).weight);
        model.graph.constant(value).unwrap().clone()
    };
    assert_eq!((read(&model, first), read(&model, second)), (shared, weight));
    let n_values = model.graph.value_ids().count();
    let again = Tensor::from_vec(&[48, 48], vec![0.5f32; 48 * 48]);
    replace_weight(&mut model, &mut layout, second, again).unwrap();
    assert_eq!(model.graph.value_ids().count(), n_values, "nobody reads the weight of before");
    assert_eq!(Layout::new(&model).unwrap().linears, layout.linears);
}

#[test]
fn norms_and_biases_can_be_replaced() {
    let mut model = TinyDecoder { bias: true, ..TinyDecoder::gpt2() }.build(7);
    let mut layout = Layout::new(&model).unwrap();
    let before = run(&model);
    let bias = Tensor::from_vec(&[144], vec![0.5f32; 144]);
    replace_bias(&mut model, &mut layout, LinearId(0), bias.clone()).unwrap();
    let value = layout.linear(LinearId(0)).bias.unwrap().value;
    assert_eq!(model.graph.constant(value), Some(&bias));
    let after_bias = run(&model);
    let norm = norm_of(&layout, SiteId(0));
    for index in [1, 2] {
        let parameter = Tensor::from_vec(&[48], vec![index as f32; 48]);
        let value = replace_parameter(&mut model, norm, index, parameter).unwrap();
        assert_eq!(model.graph.node(norm).input(index), Some(value));
    }
    planish_ir::verify(&model).unwrap();
    assert!(before != after_bias && after_bias != run(&model));
}

fn norm_of(layout: &Layout, id: SiteId) -> NodeId {
    match layout.site(id).role {
        crate::sites::SiteRole::Norm { node } => node,
        _ => panic!("a norm stands before the first site"),
    }
}

#[test]
fn replacements_that_do_not_fit_are_refused() {
    let mut model = TinyDecoder::default().build(7);
    let mut layout = Layout::new(&model).unwrap();
    let before = run(&model);
    let mut refusal = |weight: Tensor| {
        replace_weight(&mut model, &mut layout, LinearId(0), weight).unwrap_err().to_string()
    };
    let of_shape = |shape: &[usize], x: f32| Tensor::from_vec(shape, vec![x; 48 * 48]);
    assert!(refusal(of_shape(&[48 * 48], 1.0)).ends_with("its shape is [48, 48], not [2304]"));
    assert!(refusal(of_shape(&[48, 48], f32::NAN)).contains("not a finite number"));
    assert!(refusal(Tensor::from_vec(&[48, 48], vec![1i64; 48 * 48])).contains("read as float"));
    let norm = norm_of(&layout, SiteId(0));
    for index in [0, 2] {
        let tensor = Tensor::from_vec(&[48], vec![1.0f32; 48]);
        let error = replace_parameter(&mut model, norm, index, tensor).unwrap_err();
        assert!(error.to_string().contains("it is no constant"), "{error}");
    }
    let bias = Tensor::from_vec(&[48], vec![1.0f32; 48]);
    assert!(replace_bias(&mut model, &mut layout, LinearId(0), bias).is_err());
    assert_eq!(run(&model), before);
}
