//! Emitted models in ONNX Runtime: the same numbers as the operators' reference forms.

use std::path::{Path, PathBuf};
use std::process::Command;

use planish_ir::{Dim, Model, Tensor};
use planish_onnx::{WriteOptions, write_model};

use super::lower_for_opset;
use crate::autodiff::block::{parameters, small};
use crate::autodiff::differentiate;
use crate::quantize::{
    Calibration, Clip, Clips, Method, QuantizeOptions, quantize_with, transforms_of,
};
use crate::sites::Layout;
use crate::testing::{Mlp, Norm, TinyDecoder, evaluate};
use crate::transform::Random;

/// Batch, sequence and past of the runs.
const SIZES: [(&str, usize); 4] = [("batch", 2), ("sequence", 3), ("past", 4), ("total", 7)];

/// Tensors for all inputs of the model.
fn inputs(model: &Model) -> Vec<Tensor> {
    let mut random = Random::new(9);
    let graph = &model.graph;
    let tensor = |(i, input): (usize, &planish_ir::ValueId)| {
        let size = |dim: &Dim| {
            let known = SIZES.iter().find(|(name, _)| *dim == Dim::symbol(name));
            known.map(|(_, size)| *size).or(dim.as_usize()).unwrap()
        };
        let shape: Vec<usize> = graph.value(*input).shape().unwrap().iter().map(size).collect();
        let n = shape.iter().product::<usize>();
        match i {
            0 => Tensor::from_vec(&shape, (0..n).map(|_| (random.bits() % 64) as i64).collect()),
            1 => Tensor::from_vec(&shape, (0..n).map(|j| 4 + (j % 3) as i64).collect()),
            _ => Tensor::from_vec(&shape, (0..n).map(|_| random.normal() as f32).collect()),
        }
    };
    graph.inputs.iter().enumerate().map(tensor).collect()
}

/// Emits the model with its inputs' tensors as defaults, for the script that runs it.
fn emit(model: &Model, tensors: &[Tensor], path: &Path) {
    let mut emitted = model.clone();
    lower_for_opset(&mut emitted, 23).unwrap();
    for (input, tensor) in emitted.graph.inputs.clone().into_iter().zip(tensors) {
        let value = emitted.graph.value_mut(input);
        value.ty = planish_ir::ValueType::Tensor(planish_ir::TensorType::of(tensor));
        value.constant = Some(tensor.clone());
    }
    planish_ir::verify(&emitted).unwrap();
    write_model(&emitted, path, &WriteOptions::default()).unwrap();
}

/// The outputs of each of the models in ONNX Runtime, on their inputs' defaults.
fn run_onnxruntime(paths: &[PathBuf], n_outputs: &[usize]) -> Vec<Vec<Vec<f32>>> {
    let python = std::env::var("PLANISH_PYTHON_ORACLE").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/run_model.py");
    let output = Command::new(python).arg(script).args(paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &Path, i: usize| {
        let bytes = std::fs::read(format!("{}.{i}.bin", path.display())).unwrap();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let outputs = |(path, n): (&PathBuf, &usize)| (0..*n).map(|i| read(path, i)).collect();
    paths.iter().zip(n_outputs).map(outputs).collect()
}

/// Σ|a − b| / Σ|b| over all elements.
fn relative_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference: f32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
    difference / b.iter().map(|b| b.abs()).sum::<f32>()
}

/// The decoders and ways to quantise them that are emitted, with what the outputs may differ by:
/// rounding errors where nothing on the way is quantised at run time, else the effect of single
/// codes that fall to the other side.
fn cases() -> Vec<(TinyDecoder, QuantizeOptions, f32)> {
    let llama = TinyDecoder::default();
    let fused = TinyDecoder { fused: true, bias: true, tied: false, ..llama };
    let options = |bits: &str, method| QuantizeOptions {
        bits: bits.parse().unwrap(),
        method,
        ..QuantizeOptions::default()
    };
    let grouped = |bits| QuantizeOptions { group_size: Some(16), ..options(bits, Method::Rtn) };
    let (floats, codes) = (1e-5, 3e-3);
    vec![
        (llama, options("w4a16kv16", Method::Rtn), floats),
        (fused, options("w8a16kv16", Method::Hadamard), floats),
        (TinyDecoder { mlp: Mlp::Gelu, ..fused }, grouped("w4a16kv16"), floats),
        (TinyDecoder::gpt2(), options("w4a16kv16", Method::Orthogonal), floats),
        (llama, options("w4a4kv4", Method::Hadamard), codes),
        (fused, options("w4a8kv8", Method::Orthogonal), codes),
        (llama, grouped("w4a4kv16"), codes),
        (TinyDecoder::gpt2(), options("w8a8kv4", Method::Rtn), codes),
        (llama, options("w16a4kv16", Method::Hadamard), codes),
        (llama, options("w3a16", Method::Hadamard), floats),
        (fused, QuantizeOptions { group_size: Some(8), ..options("w2a8kv8", Method::Rtn) }, codes),
    ]
}

/// Quantises with clips, so that the functions' attributes are other than their defaults.
fn quantize_clipped(model: &mut Model, options: &QuantizeOptions) {
    let layout = Layout::new(model).unwrap();
    let transforms = transforms_of(&model.graph, &layout, options, None).unwrap();
    let clip = |i: usize| Some(Clip { max: 0.95 - 0.01 * i as f32, min: 0.9 });
    let clips = Clips {
        activations: (0..layout.sites.len()).map(clip).collect(),
        keys: (0..layout.attentions.len()).map(clip).collect(),
        values: (0..layout.attentions.len()).map(|i| clip(i + 2)).collect(),
        weights: Vec::new(),
    };
    let calibration = Calibration { transforms, clips, ..Calibration::default() };
    quantize_with(model, &layout, &calibration, options, &mut |_| {}).unwrap();
}

#[test]
fn onnxruntime_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (mut paths, mut expected) = (Vec::new(), Vec::new());
    for (i, (decoder, options, _)) in cases().into_iter().enumerate() {
        let mut model = decoder.build(i as u64);
        quantize_clipped(&mut model, &options);
        let tensors = inputs(&model);
        let path = folder.path().join(format!("{i}.onnx"));
        emit(&model, &tensors, &path);
        paths.push(path);
        expected.push(evaluate(&model, tensors));
    }
    let n_outputs: Vec<usize> = expected.iter().map(Vec::len).collect();
    let answers = run_onnxruntime(&paths, &n_outputs);
    for (i, (_, options, tolerance)) in cases().into_iter().enumerate() {
        for (j, (answer, expected)) in answers[i].iter().zip(&expected[i]).enumerate() {
            let difference = relative_difference(answer, &expected.to_f32_vec().unwrap());
            let (bits, method) = (options.bits, options.method);
            println!("{bits} {method:?}, output {j}: {difference}");
            assert!(difference < tolerance, "{bits} {method:?}, output {j}: {difference}");
        }
    }
}

#[test]
fn onnxruntime_computes_the_same_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let (mut paths, mut expected) = (Vec::new(), Vec::new());
    let llama = TinyDecoder::default();
    let other = TinyDecoder { fused: true, bias: true, norm: Norm::Layer, ..llama };
    for (i, decoder) in [llama, other].into_iter().enumerate() {
        let (block, tensors) = small(decoder);
        let wrt = parameters(&block);
        let mut model = block.model;
        let shape = tensors[&block.input].shape().to_vec();
        let mut random = Random::new(12);
        let seed = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
        let seed = model.graph.add_constant("seed", Tensor::from_vec(&shape, seed));
        let gradients = differentiate(&mut model, &[(block.output, seed)], &wrt).unwrap();
        model.graph.outputs = gradients.into_iter().map(Option::unwrap).collect();
        let tensors: Vec<Tensor> = model.graph.inputs.iter().map(|v| tensors[v].clone()).collect();
        let path = folder.path().join(format!("{i}.onnx"));
        emit(&model, &tensors, &path);
        paths.push(path);
        expected.push(evaluate(&model, tensors));
    }
    let n_outputs: Vec<usize> = expected.iter().map(Vec::len).collect();
    let answers = run_onnxruntime(&paths, &n_outputs);
    for (answer, expected) in answers.iter().flatten().zip(expected.iter().flatten()) {
        let difference = relative_difference(answer, &expected.to_f32_vec().unwrap());
        println!("gradient: {difference}");
        assert!(difference < 1e-5, "{difference}");
    }
}
