//! What exports do beyond one prompt in one plain graph, against ONNX Runtime: padded batches,
//! branches and loops.

mod common;

use common::{find, python};
use planish_ir::{Model, Tensor};
use planish_models::{Exporter, TinyModel, tiny_models};
use planish_onnx::{WriteOptions, read_model, write_model};
use planish_passes::PassManager;
use planish_passes::canonicalize::canonicalize;
use planish_runtime::decoder::forward_arrays;
use planish_runtime::engine::cpu::CpuEngine;
use planish_runtime::npz::{NpyArray, read_npz};

/// Largest difference of logits, relative to the largest.
const TOLERANCE: f32 = 1e-4;

/// The logits at positions that are no padding.
fn visible(logits: &[f32], mask: &NpyArray) -> Vec<f32> {
    let mask = mask.to_i64().unwrap();
    let rows = logits.chunks(logits.len() / mask.len()).zip(mask);
    rows.filter(|(_, keep)| *keep != 0).flat_map(|(row, _)| row).copied().collect()
}

/// ONNX Runtime's `GroupQueryAttention` takes padding on the right.
fn pads_on_the_left(tiny: &TinyModel) -> bool {
    tiny.exporter != Exporter::Genai
}

#[test]
fn padding_on_the_left_is_not_seen() {
    let models: Vec<TinyModel> = tiny_models().into_iter().filter(pads_on_the_left).collect();
    let root = tempfile::tempdir().unwrap();
    let mut arguments = vec![root.path().display().to_string()];
    arguments.extend(models.iter().map(|tiny| tiny.dir.display().to_string()));
    let refused = python("padded.py", &arguments);
    let refused: Vec<&str> = refused.lines().collect();
    assert!(refused.iter().all(|name| name.ends_with("dynamo23")), "{refused:?}");
    for tiny in models.iter().filter(|tiny| !refused.contains(&tiny.name.as_str())) {
        let imported = read_model(&tiny.dir.join("model.onnx")).unwrap();
        let mut canonical = imported.clone();
        canonicalize(&mut canonical, &mut PassManager::new()).unwrap();
        for run in ["prefill", "step"] {
            let file = root.path().join(format!("{}.{run}.npz", tiny.name));
            let arrays = read_npz(&file).unwrap();
            let mask = find(&arrays, "mask");
            let expected = visible(&find(&arrays, "logits").to_f32().unwrap(), mask);
            let inputs = arrays.iter().filter_map(|(name, array)| {
                Some((name.strip_prefix("in/")?.to_owned(), array.clone()))
            });
            let inputs: Vec<(String, NpyArray)> = inputs.collect();
            for (form, model) in [("imported", &imported), ("canonical", &canonical)] {
                let outputs = forward_arrays(model, &CpuEngine::new(2), inputs.clone()).unwrap();
                let logits = visible(&find(&outputs, "logits").to_f32().unwrap(), mask);
                let difference = common::difference(&logits, &expected);
                assert!(difference < TOLERANCE, "{}, {run}, {form}: {difference}", tiny.name);
            }
        }
    }
}

/// Graphs with graphs inside; every input has a default, on which both engines run.
const CONTROL_FLOW: [&str; 5] = [
    // Branches that read from around, and a branch within a branch.
    "g (bool c, bool d, float[2, 3] x) => (float[2, 3] y, float[2, 3] z) <float[3] w = {1, 2, 3}> {
        y = If (c) <then_branch = a () => (float[2, 3] p) { p = Mul (x, w) },
                    else_branch = b () => (float[2, 3] q) { q = Neg (x) }>
        z = If (d) <then_branch = e () => (float[2, 3] r) {
                r = If (c) <then_branch = f () => (float[2, 3] s) { s = Add (x, y) },
                            else_branch = h () => (float[2, 3] t) { t = Sub (x, w) }>
            }, else_branch = i () => (float[2, 3] u) { u = Identity (x) }>
    }",
    // A number of iterations and a condition, carried values that grow.
    "g (int64 n, float[1] x) => (float[m] all, float[k, 1] squares) <bool yes = {1}> {
        all, squares = Loop (n, yes, x) <body = step (int64 i, bool go, float[l] seen)
            => (bool on, float[l2] more, float[1] square) {
                at = Cast <to = 1> (i)
                next = Add (at, x)
                more = Concat <axis = 0> (seen, next)
                square = Mul (next, next)
                limit = Constant <value_float = 30.0> ()
                small = Less (square, limit)
                on = Squeeze (small)
            }>
    }",
    // No iteration at all.
    "g (bool no, float[2] x) => (float[2] y, float[k, 2] z) <int64 n = {7}> {
        y, z = Loop (n, no, x) <body = step (int64 i, bool go, float[2] a)
            => (bool on, float[2] b, float[2] c) { on = Identity (go) b = Add (a, x) c = Neg (b) }>
    }",
    // Slices of the second axis from the end, put together along the last.
    "g (float[2] first, float[2, 4] x) => (float[2] sum, float[2, 4] partial) {
        sum, partial = Scan (first, x) <num_scan_inputs = 1, scan_input_axes = [1],
            scan_input_directions = [1], scan_output_axes = [1], scan_output_directions = [1],
            body = step (float[2] a, float[2] e)
            => (float[2] total, float[2] out) { total = Add (a, e) out = Mul (total, first) }>
    }",
    // A function whose attribute has a default, called twice, once within a branch.
    "g (bool c, float[4] x) => (float[4] y, float[4] z) {
        y = local.Scaled (x)
        z = If (c) <then_branch = a () => (float[4] p) { p = local.Scaled <by = 3.0> (x) },
                    else_branch = b () => (float[4] q) { q = Abs (x) }>
    }
    <domain: \"local\", opset_import: [\"\": 18]>
    Scaled <by: float = 2.0> (v) => (scaled) {
        factor = Constant <value_float: float = @by> ()
        scaled = Mul (v, factor)
    }",
];

/// The inputs of the graphs above get these defaults.
fn with_defaults(text: &str) -> Model {
    let header = "<ir_version: 10, opset_import: [\"\": 18, \"local\": 1]>\n";
    let mut model = planish_ir::text::parse(&format!("{header}{text}")).unwrap();
    for input in model.graph.inputs.clone() {
        let value = model.graph.value_mut(input);
        let sizes =
            value.shape().unwrap().iter().map(|d| d.as_usize().unwrap()).collect::<Vec<_>>();
        let n: usize = sizes.iter().product();
        value.constant = Some(match value.dtype().unwrap() {
            planish_ir::DataType::Bool => Tensor::from_bools(&sizes, &vec![value.name != "no"; n]),
            planish_ir::DataType::I64 => Tensor::from_vec(&sizes, vec![9i64; n]),
            _ => Tensor::from_vec(&sizes, (0..n).map(|i| i as f32 - 1.5).collect()),
        });
    }
    model
}

#[test]
fn branches_loops_and_functions_do_what_onnx_runtime_does() {
    let root = tempfile::tempdir().unwrap();
    let files: Vec<String> = (0..CONTROL_FLOW.len())
        .map(|i| root.path().join(format!("{i}.onnx")).display().to_string())
        .collect();
    for (file, text) in files.iter().zip(CONTROL_FLOW) {
        write_model(&with_defaults(text), file.as_ref(), &WriteOptions::default()).unwrap();
    }
    let described = python("run_model.py", &files);
    let mut described = described.lines();
    for (file, text) in files.iter().zip(CONTROL_FLOW) {
        let imported = read_model(file.as_ref()).unwrap();
        let mut canonical = imported.clone();
        canonicalize(&mut canonical, &mut PassManager::new().with_verify()).unwrap();
        let n_outputs = imported.graph.outputs.len();
        let shapes: Vec<&str> = described.by_ref().take(n_outputs).collect();
        for (form, model) in [("imported", &imported), ("canonical", &canonical)] {
            let outputs = forward_arrays(model, &CpuEngine::new(1), Vec::new()).unwrap();
            for (i, ((_, ours), shape)) in outputs.iter().zip(&shapes).enumerate() {
                let theirs = std::fs::read(format!("{file}.{i}.bin")).unwrap();
                let sizes = ours.shape.iter().map(usize::to_string).collect::<Vec<_>>();
                let shape = shape.split(' ').skip(1).collect::<Vec<_>>();
                assert_eq!(
                    (sizes, &ours.bytes),
                    (shape.iter().map(|s| s.to_string()).collect(), &theirs),
                    "{form}, output {i} of {text}"
                );
            }
        }
    }
}

#[test]
fn an_operator_that_nobody_knows_is_named_within_a_branch() {
    let text = "g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <then_branch = a () => (float[4] p) { [odd] p = local.Unheard (x) },
                    else_branch = b () => (float[4] q) { q = Abs (x) }>
    }";
    let model = with_defaults(text);
    let error = forward_arrays(&model, &CpuEngine::new(1), Vec::new()).unwrap_err().to_string();
    assert!(error.contains("local.Unheard \"odd\": there is no implementation of it"), "{error}");
}
