//! Models with random weights in the form of an export: recognised, and run as ONNX Runtime runs
//! them.

mod common;

use std::path::{Path, PathBuf};

use common::{difference, find, python, tokens};
use planish::app::{OpenOptions, inspect, open_model};
use planish_models::synthetic::{FloatType, LlamaShape, generate};
use planish_runtime::Logits;
use planish_runtime::npz::{NpyArray, read_npz, write_npz};

fn generated(root: &Path, dtype: FloatType) -> PathBuf {
    let folder = root.join("model");
    generate(&LlamaShape::TINY, dtype, 1, &folder, &mut |_| ()).unwrap();
    folder
}

fn check_recognised(folder: &Path) {
    let report = inspect(folder).unwrap();
    let recognised = report.recognised.unwrap();
    assert_eq!((recognised.blocks, recognised.sites, recognised.attentions), (2, 8, 2));
    assert_eq!(recognised.linear_layers, 2 * 7 + 1);
    assert!(!recognised.tied_head && recognised.left_alone.is_empty(), "{}", recognised.text);
    let count = |op: &str| recognised.nodes.get(op).copied().unwrap_or(0);
    assert_eq!((count("RotaryEmbedding"), count("Swish"), count("Cos")), (4, 2, 1));
}

/// Compares logits of a prompt and of two more tokens with ONNX Runtime's.
fn check_logits(folder: &Path, tolerance: f32) {
    let ids: Vec<i64> = (0..20).map(|i| i * i * 7 % 512).collect();
    let array = |ids: &[i64]| NpyArray::from_i64(&[1, ids.len()], ids);
    let arrays = [("ids".into(), array(&ids[..18])), ("step_ids".into(), array(&ids[18..]))];
    write_npz(&folder.join("ids.npz"), &arrays).unwrap();
    python("codes.py", &[folder.display().to_string()]);
    let mut model = open_model(folder, &OpenOptions::default()).unwrap();
    for run in ["prefill", "step"] {
        let read = |kind: &str| read_npz(&folder.join(format!("{run}.{kind}.npz"))).unwrap();
        let ids = tokens(find(&read("in"), "input_ids"));
        let ours = model.forward(&ids, Logits::All).unwrap();
        let theirs = find(&read("out"), "logits").to_f32().unwrap();
        let difference = difference(&ours.data, &theirs);
        assert!(difference < tolerance, "{run}: {difference}");
    }
}

#[test]
fn a_generated_model_is_recognised_and_runs_as_in_onnxruntime() {
    let root = tempfile::tempdir().unwrap();
    let folder = generated(root.path(), FloatType::F32);
    check_recognised(&folder);
    check_logits(&folder, 1e-5);
}

/// ONNX Runtime computes in f16, we in f32.
#[test]
fn a_generated_model_in_16_bits_is_the_same_up_to_their_precision() {
    let root = tempfile::tempdir().unwrap();
    let folder = generated(root.path(), FloatType::F16);
    check_recognised(&folder);
    check_logits(&folder, 3e-3);
}
