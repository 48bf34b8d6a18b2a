//! Tests of students: they compute what the quantised model will.

use planish_ir::{Model, Tensor};

use super::*;
use crate::PassManager;
use crate::canonicalize::canonicalize;
use crate::quantize::{BitWidths, Calibration, ModelQuantizer, QuantizeOptions, quantize_with};
use crate::sites::Layout;
use crate::testing::{Norm, TinyDecoder, evaluate, run};
use crate::transform::{Random, TransformSet};

/// What sums in another order may make of logits; no code falls to the other side in these runs.
const ROUNDING: f64 = 1e-5;

fn canonical(decoder: TinyDecoder) -> (Model, Layout) {
    let mut model = decoder.build(11);
    canonicalize(&mut model, &mut PassManager::new()).unwrap();
    let layout = Layout::new(&model).unwrap();
    (model, layout)
}

fn options(bits: &str) -> StudentOptions {
    StudentOptions {
        bits: bits.parse().unwrap(),
        group_size: None,
        online: Online::Kronecker,
        scales: true,
        shifts: false,
        weights: true,
        gradual: None,
    }
}

/// Parameters away from their start.
fn disturbed(student: &Student, random: &mut Random) -> Vec<Tensor> {
    let disturb = |parameter: &Parameter| {
        let size = match parameter.kind {
            ParameterKind::Matrix => 0.03,
            ParameterKind::Scale => 0.3,
            ParameterKind::Shift => 1.0,
            ParameterKind::Clip => 1.0,
            ParameterKind::Weight => 0.02,
        };
        let values = parameter.initial.to_f32_vec().unwrap();
        let values = values.iter().map(|x| x + (random.normal() * size) as f32).collect();
        Tensor::from_vec(parameter.initial.shape(), values)
    };
    student.parameters.iter().map(disturb).collect()
}

/// The student's graph with its parameters as constants, so that it can stand for its block.
fn output_of(
    student: &Student,
    given: &[(planish_ir::ValueId, Tensor)],
    values: &[Tensor],
) -> Tensor {
    let graph = &student.model.graph;
    let n_first = graph.inputs.len() - values.len();
    let mask = |name: &str| {
        let mask = student.masks.iter().find(|mask| mask.name == name)?;
        let stability = student.gradual?;
        Some(Tensor::from_vec(&[mask.n, mask.n], GradualMask::at(mask.n, stability, 1.0)))
    };
    let mut inputs: Vec<Tensor> = graph.inputs[..n_first]
        .iter()
        .map(|value| {
            let found = given.iter().find(|(v, _)| v == value).map(|(_, tensor)| tensor.clone());
            found.or_else(|| mask(&graph.value(*value).name)).unwrap()
        })
        .collect();
    inputs.extend(values.iter().cloned());
    evaluate(&student.model, inputs).remove(0)
}

/// Logits of a prefill: of the students one after the other, and of the quantised model.
fn compare(decoder: TinyDecoder, options: &StudentOptions) -> (Vec<f32>, Vec<f32>) {
    let (mut model, layout) = canonical(decoder);
    let pieces: Vec<BlockModel> =
        (0..layout.blocks.len()).map(|i| cut_block(&model, &layout, i).unwrap()).collect();
    let tail = cut_tail(&model, &layout).unwrap();
    let known = outside_of(&model, &pieces, &decoder);
    let mut random = Random::new(5);
    let mut calibration = Calibration::of_transforms(TransformSet::identity(&layout));
    let (mut x, mut blocks) = (known[0].1.clone(), Vec::new());
    for piece in &pieces {
        let student = Student::new(piece, options, &mut Initial::new(7)).unwrap();
        planish_ir::verify(&student.model).unwrap();
        let values = disturbed(&student, &mut random);
        let mut given = known[1..].to_vec();
        given.push((piece.input, x));
        x = output_of(&student, &given, &values);
        let learned = LearnedBlock::new(&student, &values).unwrap();
        learned.add_to(&mut calibration);
        blocks.push(learned);
    }
    let logits = evaluate(&tail.model, vec![x]).remove(0).to_f32_vec().unwrap();
    let quantize = QuantizeOptions {
        bits: options.bits,
        group_size: options.group_size,
        lm_head_bits: 16,
        ..QuantizeOptions::default()
    };
    let mut quantizer = ModelQuantizer::new(&mut model, &layout, &quantize).unwrap();
    for (index, block) in blocks.iter().enumerate() {
        block.replace_weights(&mut quantizer).unwrap();
        quantizer.quantize_group(index, &calibration).unwrap();
    }
    quantizer.finish().unwrap();
    (logits, run(&model)[0].clone())
}

/// What the pieces read: the stream before the first block, and values from outside, for the
/// tokens that [`run`] feeds.
fn outside_of(
    model: &Model,
    pieces: &[BlockModel],
    decoder: &TinyDecoder,
) -> Vec<(planish_ir::ValueId, Tensor)> {
    let mut wanted = vec![pieces[0].input];
    for value in pieces.iter().flat_map(|piece| &piece.outside) {
        if !wanted.contains(value) {
            wanted.push(*value);
        }
    }
    let mut whole = model.clone();
    let n_own = whole.graph.outputs.len();
    whole.graph.outputs.extend(&wanted);
    let ids: Vec<i64> = (0..10).map(|i| (3 + 17 * i) % 61).collect();
    let positions: Vec<i64> = (0..10).map(|i| i % 5).collect();
    let mut inputs = vec![Tensor::from_vec(&[2, 5], ids), Tensor::from_vec(&[2, 5], positions)];
    let empty = Tensor::from_vec(&[2, decoder.kv_heads, 0, decoder.head_size], Vec::<f32>::new());
    inputs.resize(whole.graph.inputs.len(), empty);
    let outputs = evaluate(&whole, inputs);
    wanted.into_iter().zip(outputs.into_iter().skip(n_own)).collect()
}

fn relative_difference((a, b): &(Vec<f32>, Vec<f32>)) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

#[test]
fn a_student_computes_what_the_quantised_model_will() {
    let fused = TinyDecoder { fused: true, bias: true, ..TinyDecoder::default() };
    let layer_norms = TinyDecoder { norm: Norm::Layer, bias: true, ..TinyDecoder::default() };
    for decoder in [TinyDecoder::default(), TinyDecoder::gpt2(), fused, layer_norms] {
        for bits in ["w8a8kv8", "w4a16kv16", "w4a4kv4"] {
            let difference = relative_difference(&compare(decoder, &options(bits)));
            assert!(difference < ROUNDING, "{decoder:?} {bits}: {difference}");
        }
    }
}

#[test]
fn one_matrix_for_every_run_of_channels_too() {
    // Runs of 48 and of 40 channels, and of 12 heads.
    for bits in ["w8a8kv16", "w4a4kv4", "w4a16kv16"] {
        let options = StudentOptions { online: Online::Blocks, ..options(bits) };
        let difference = relative_difference(&compare(TinyDecoder::default(), &options));
        assert!(difference < ROUNDING, "{bits}: {difference}");
    }
}

#[test]
fn shifts_too() {
    let layer_norms = TinyDecoder { norm: Norm::Layer, bias: true, ..TinyDecoder::default() };
    for decoder in [TinyDecoder::gpt2(), layer_norms] {
        for (bits, scales) in [("w8a8kv16", true), ("w4a4kv4", true), ("w4a4kv4", false)] {
            let transformed = StudentOptions { shifts: true, scales, ..options(bits) };
            let (online, gradual) = (Online::Nothing, Some(0.1));
            let merged = StudentOptions { online, gradual, weights: false, ..transformed.clone() };
            for options in [transformed, merged] {
                let difference = relative_difference(&compare(decoder, &options));
                assert!(difference < ROUNDING, "{decoder:?} {options:?}: {difference}");
            }
        }
    }
}

#[test]
fn there_are_shifts_where_biases_take_them_and_activations_are_rounded() {
    let layer_norms = TinyDecoder { norm: Norm::Layer, ..TinyDecoder::default() };
    for (decoder, bits, expected) in [
        (TinyDecoder::gpt2(), "w4a4kv16", vec![true, false, true, false]),
        (TinyDecoder::gpt2(), "w4a16kv16", vec![false; 4]),
        (layer_norms, "w4a4kv16", vec![false; 4]),
        (TinyDecoder { bias: true, ..TinyDecoder::default() }, "w4a4kv16", vec![false; 4]),
    ] {
        let (model, layout) = canonical(decoder);
        let piece = cut_block(&model, &layout, 0).unwrap();
        let options = StudentOptions { shifts: true, ..options(bits) };
        let student = Student::new(&piece, &options, &mut Initial::new(7)).unwrap();
        let found: Vec<bool> = student.sites.values().map(|site| site.shift.is_some()).collect();
        assert_eq!(found, expected, "{decoder:?} {bits}");
    }
}

#[test]
fn shifts_start_in_the_middle_of_what_is_observed() {
    let (model, layout) = canonical(TinyDecoder::gpt2());
    let piece = cut_block(&model, &layout, 0).unwrap();
    let site = layout.blocks[0].sites[0];
    let options = StudentOptions { shifts: true, ..options("w4a4kv16") };
    let observed = ObservedBlock::new(&piece, &options);
    planish_ir::verify(&observed.model).unwrap();
    let mut initial = Initial::new(7);
    let known = outside_of(&model, std::slice::from_ref(&piece), &TinyDecoder::gpt2());
    let stream = &known[0].1;
    for factor in [1.0, -1.0] {
        let data = stream.to_f32_vec().unwrap().iter().map(|x| factor * x).collect();
        let stream = Tensor::from_vec(stream.shape(), data);
        observed.update(&mut initial.statistics, &evaluate(&observed.model, vec![stream])).unwrap();
    }
    let student = Student::new(&piece, &options, &mut initial).unwrap();
    // A norm gives −n·g + b for −x where it gives n·g + b for x: the middle is its bias.
    let start = &student.parameters[student.sites[&site].shift.unwrap().0].initial;
    let crate::sites::SiteRole::Norm { node } = layout.site(site).role else { panic!("no norm") };
    let bias = model.graph.constant(model.graph.node(node).input(2).unwrap()).unwrap();
    let (start, bias) = (start.to_f32_vec().unwrap(), bias.to_f32_vec().unwrap());
    assert!(start.iter().zip(&bias).all(|(a, b)| (a - b).abs() < 1e-5), "{start:?} {bias:?}");
}

#[test]
fn groups_and_merged_transforms_too() {
    let groups = StudentOptions { group_size: Some(8), ..options("w4a16kv16") };
    let merged = StudentOptions {
        online: Online::Nothing,
        gradual: Some(0.1),
        weights: false,
        ..options("w8a8kv16")
    };
    for options in [groups, merged] {
        let difference = relative_difference(&compare(TinyDecoder::default(), &options));
        assert!(difference < ROUNDING, "{options:?}: {difference}");
    }
}

#[test]
fn merged_transforms_leave_no_node_behind() {
    let (mut model, layout) = canonical(TinyDecoder::default());
    let options =
        StudentOptions { online: Online::Nothing, gradual: Some(0.1), ..options("w4a4kv4") };
    let mut calibration = Calibration::of_transforms(TransformSet::identity(&layout));
    for i in 0..layout.blocks.len() {
        let piece = cut_block(&model, &layout, i).unwrap();
        let student = Student::new(&piece, &options, &mut Initial::new(7)).unwrap();
        let values: Vec<Tensor> = student.parameters.iter().map(|p| p.initial.clone()).collect();
        LearnedBlock::new(&student, &values).unwrap().add_to(&mut calibration);
    }
    let quantize = QuantizeOptions { bits: BitWidths::W4A4KV4, ..QuantizeOptions::default() };
    quantize_with(&mut model, &layout, &calibration, &quantize, &mut |_| {}).unwrap();
    let transforms =
        model.graph.node_ids().filter(|id| model.graph.node(*id).op_type.contains("Transform"));
    assert_eq!(transforms.count(), 0);
}

#[test]
fn nothing_changes_before_anything_is_rounded() {
    let (model, layout) = canonical(TinyDecoder::default());
    let piece = cut_block(&model, &layout, 0).unwrap();
    let known = outside_of(&model, std::slice::from_ref(&piece), &TinyDecoder::default());
    let student = Student::new(&piece, &options("w16a16kv16"), &mut Initial::new(1)).unwrap();
    assert!(student.parameters.is_empty(), "nothing is rounded, so there is nothing to learn");
    let given: Vec<Tensor> = known.iter().map(|(_, tensor)| tensor.clone()).collect();
    let before = evaluate(&piece.model, given).remove(0);
    assert_eq!(output_of(&student, &known, &[]), before);
}
