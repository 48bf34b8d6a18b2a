//! Models quantised with learned clips, and Hessians, on the engine against the operators'
//! reference forms.

use std::collections::HashMap;

use planish_ir::{DataType, Tensor, ValueId};
use planish_passes::interpret::Interpreter;
use planish_passes::quantize::{
    Calibration, Clip, Clips, Hessian, Rounding, WeightClip, observe_hessians, quantize_with,
    transforms_of,
};
use planish_passes::sites::{Layout, SiteId};

use super::*;

/// Clips between 0.8 and 0.95, different everywhere.
fn clips(layout: &Layout) -> Clips {
    let clip = |i: usize| Some(Clip { max: 0.8 + 0.01 * (i % 9) as f32, min: 0.9 });
    let weight = |n: usize| WeightClip { max: vec![0.9; n], min: vec![0.95; n] };
    Clips {
        activations: (0..layout.sites.len()).map(clip).collect(),
        keys: (0..layout.attentions.len()).map(|i| clip(i + 3)).collect(),
        values: (0..layout.attentions.len()).map(|i| clip(i + 6)).collect(),
        weights: layout.linears.iter().map(|linear| Some(weight(linear.out_features))).collect(),
    }
}

fn canonical(model: &Model) -> Model {
    let mut model = model.clone();
    canonicalize::canonicalize(&mut model, &mut PassManager::new()).unwrap();
    model
}

/// A canonical model quantised with clips, or without.
fn with_clips(model: &Model, bits: &str, method: Method, clips: fn(&Layout) -> Clips) -> Model {
    let mut model = canonical(model);
    let layout = Layout::new(&model).unwrap();
    let (bits, lm_head_bits) = (bits.parse().unwrap(), 16);
    let options = QuantizeOptions { bits, method, lm_head_bits, ..QuantizeOptions::default() };
    let transforms = transforms_of(&model.graph, &layout, &options, None).unwrap();
    let calibration = Calibration { transforms, clips: clips(&layout), ..Calibration::default() };
    quantize_with(&mut model, &layout, &calibration, &options, &mut |_| {}).unwrap();
    model
}

/// Outputs of a prefill on an empty cache, by the operators' reference forms.
fn reference(model: &Model, ids: &[u32], outputs: &[ValueId]) -> Vec<Vec<f32>> {
    let graph = &model.graph;
    let roles = Roles::find(model).unwrap();
    let tensor = |input: ValueId| {
        if let Some(cache) = roles.caches.iter().find(|pair| pair.past == input) {
            return cache.empty(1).unwrap();
        }
        let element = |i: usize| match input {
            _ if input == roles.tokens => i64::from(ids[i]),
            _ if Some(input) == roles.positions => i as i64,
            _ => 1,
        };
        let values: Vec<i64> = (0..ids.len()).map(element).collect();
        match graph.value(input).dtype() {
            Some(DataType::I32) => {
                Tensor::from_vec(&[1, ids.len()], values.iter().map(|x| *x as i32).collect())
            }
            _ => Tensor::from_vec(&[1, ids.len()], values),
        }
    };
    let known: HashMap<ValueId, Tensor> = graph.inputs.iter().map(|v| (*v, tensor(*v))).collect();
    let opset = |domain: &str| model.opset(domain).unwrap_or(1);
    let mut interpreter = Interpreter::new(graph, &opset, known);
    outputs.iter().map(|v| interpreter.value(*v).unwrap().to_f32_vec().unwrap()).collect()
}

/// Σ|a − b| / Σ|b|.
fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference: f32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
    difference / b.iter().map(|b| b.abs()).sum::<f32>()
}

#[test]
fn clips_reach_the_fused_kernels_and_the_packed_cache() {
    for (bits, method) in [("w4a8kv8", Method::Rtn), ("w4a8kv8", Method::Hadamard)] {
        for_each_model(Mode::Lowered, |name, model, options, expected| {
            let clipped = with_clips(model, bits, method, clips);
            let plain = with_clips(model, bits, method, |_| Clips::default());
            let logits = |model: &Model| {
                let logits = Roles::find(model).unwrap().logits;
                reference(model, &expected.ids, &[logits]).remove(0)
            };
            let want = logits(&clipped);
            let effect = mean_difference(&logits(&plain), &want);
            assert!(effect > 0.02, "{name}, {method:?}: clips change only {effect}");
            for mode in [Mode::AsImported, Mode::Lowered] {
                let mut decoder = open(&clipped, DecoderOptions { mode, ..options });
                let got = decoder.forward(&expected.ids, Logits::All).unwrap();
                let difference = mean_difference(&got.data, &want);
                // A code that falls to the other side of a half moves the logits.
                assert!(difference < 0.1 * effect, "{name}, {mode:?}: {difference} of {effect}");
            }
        });
    }
}

/// Clips of keys and values alone.
fn cache_clips(layout: &Layout) -> Clips {
    let Clips { keys, values, .. } = clips(layout);
    Clips { keys, values, ..Clips::default() }
}

#[test]
fn steps_after_a_clipped_cache_are_those_of_the_quantised_graph() {
    for bits in ["w16a16kv8", "w16a16kv4"] {
        for_each_model(Mode::Lowered, |name, model, options, expected| {
            let logits = |clips, mode| {
                let model = with_clips(model, bits, Method::Hadamard, clips);
                let mut decoder = open(&model, DecoderOptions { mode, ..options });
                let prompt = decoder.forward(&expected.ids, Logits::All).unwrap();
                let step = decoder.forward(&expected.step_ids, Logits::Last).unwrap();
                [prompt.data, step.data].concat()
            };
            let want = logits(cache_clips, Mode::AsImported);
            let effect = mean_difference(&logits(|_| Clips::default(), Mode::Lowered), &want);
            let difference = mean_difference(&logits(cache_clips, Mode::Lowered), &want);
            assert!(effect > 0.02, "{name}, {bits}: clips change only {effect}");
            assert!(difference < 1e-5, "{name}, {bits}: {difference}");
        });
    }
}

#[test]
fn hessians_are_sums_over_the_windows() {
    for_each_model(Mode::Lowered, |name, model, _, expected| {
        let models = [canonical(model), with_clips(model, "w16a8kv8", Method::Hadamard, clips)];
        let layout = Layout::new(&models[0]).unwrap();
        for model in models {
            let sites = [SiteId(0), SiteId(3)];
            let windows: [&[u32]; 2] = [&expected.ids, &expected.ids[..1]];
            let engine = CpuEngine::new(2);
            let hessians =
                collect_hessians(&model, &layout, &sites, &engine, &windows, &mut |_| {}).unwrap();
            assert!(hessians.site(SiteId(1)).is_none());
            let observed = observe_hessians(&model, &layout, &sites).unwrap();
            let graph = &observed.model.graph;
            let find = |(_, output): &(SiteId, String)| graph.find_value(output).unwrap();
            let outputs: Vec<ValueId> = observed.outputs.iter().map(find).collect();
            let runs = windows.map(|window| reference(&observed.model, window, &outputs));
            for (i, site) in sites.iter().enumerate() {
                let n = layout.site(*site).channels;
                let mut sum = Hessian::new(n);
                for run in &runs {
                    sum.add(&Tensor::from_vec(&[n, n], run[i].clone())).unwrap();
                }
                let f32s =
                    |h: &Hessian| h.elements().iter().map(|x| *x as f32).collect::<Vec<f32>>();
                let got = f32s(hessians.site(*site).unwrap());
                // Single codes may fall to the other side of a half.
                assert_close(&format!("{name}, site {i}"), &got, &f32s(&sum), 0.005);
            }
        }
    });
}

#[test]
fn gptq_on_collected_hessians_comes_closer_than_rounding_to_nearest() {
    let (mut nearest_sum, mut gptq_sum) = (0.0, 0.0);
    for folder in tiny_models() {
        let model = canonical(&read(&folder));
        let layout = Layout::new(&model).unwrap();
        let sites: Vec<SiteId> = layout.site_ids().collect();
        let ids: Vec<u32> = (0..24u32).map(|i| 1 + i * 7 % 29).collect();
        let engine = CpuEngine::new(2);
        let windows = [ids.as_slice()];
        let hessians =
            collect_hessians(&model, &layout, &sites, &engine, &windows, &mut |_| {}).unwrap();
        let calibration = Calibration { hessians, ..Calibration::default() };
        let run = |model: &Model| {
            open(model, DecoderOptions::default()).forward(&ids, Logits::All).unwrap().data
        };
        let before = run(&model);
        let error = |rounding| {
            let (bits, lm_head_bits) = ("w3a16".parse().unwrap(), 16);
            let options =
                QuantizeOptions { bits, lm_head_bits, rounding, ..QuantizeOptions::default() };
            let mut model = model.clone();
            quantize_with(&mut model, &layout, &calibration, &options, &mut |_| {}).unwrap();
            mean_difference(&run(&model), &before)
        };
        nearest_sum += error(Rounding::Nearest);
        gptq_sum += error(Rounding::GPTQ);
    }
    assert!(gptq_sum < 0.7 * nearest_sum, "{gptq_sum} {nearest_sum}");
}
