//! Rebuilding from a small GGUF file whose data file is known by hand.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::gguf::testing::{Builder, f32_bytes};

/// Row-permuted query weights of one head of four rows, and a value weight.
const STORED_Q: [f32; 8] = [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0];
const V: [f32; 2] = [8.0, 9.0];
/// [in, out]: q and v transposed, beside one another.
const QV: [f32; 10] = [0.0, 2.0, 4.0, 6.0, 8.0, 1.0, 3.0, 5.0, 7.0, 9.0];
const NORM: [f32; 3] = [1.0, 2.0, 3.0];

struct Case {
    folder: TempDir,
    gguf: PathBuf,
    data: PathBuf,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gguf = folder.path().join("model.gguf");
        let bytes = Builder::new(3)
            .u32("llama.attention.head_count", 1)
            .tensor("blk.0.attn_q.weight", &[2, 4], 0, &f32_bytes(&STORED_Q))
            .tensor("blk.0.attn_v.weight", &[2, 1], 0, &f32_bytes(&V))
            .tensor("norm.weight", &[3], 0, &f32_bytes(&NORM))
            .build();
        fs::write(&gguf, bytes).unwrap();
        let data = folder.path().join("model.onnx.data");
        Self { folder, gguf, data }
    }

    fn manifest(&self, change: impl Fn(&mut Value)) -> Manifest {
        let mut manifest = json!({"bytes": 72, "tensors": [
            {
                "name": "qv", "dtype": "float32", "shape": [2, 5], "offset": 0, "length": 40,
                "sha256": sha256(&f32_bytes(&QV)), "concat_axis": 1,
                "from": [
                    {"gguf": "blk.0.attn_q.weight", "layout": "transposed"},
                    {"gguf": "blk.0.attn_v.weight", "layout": "transposed"},
                ],
            },
            {
                "name": "norm", "dtype": "float32", "shape": [3], "offset": 48, "length": 12,
                "sha256": sha256(&f32_bytes(&NORM)), "concat_axis": null,
                "from": [{"gguf": "norm.weight", "layout": "as_is"}],
            },
        ]});
        change(&mut manifest);
        let path = self.folder.path().join("weights.json");
        fs::write(&path, manifest.to_string()).unwrap();
        Manifest::read(&path).unwrap()
    }

    fn rebuild(&self, change: impl Fn(&mut Value)) -> Result<()> {
        rebuild(&self.manifest(change), &self.gguf, &self.data, &mut |_| ())
    }

    fn refusal(&self, change: impl Fn(&mut Value)) -> String {
        let message = self.rebuild(change).unwrap_err().to_string();
        assert!(!self.data.exists(), "no file under its final name: {message}");
        message
    }
}

fn unchanged(_: &mut Value) {}

fn expected() -> Vec<u8> {
    [f32_bytes(&QV), vec![0; 8], f32_bytes(&NORM), vec![0; 12]].concat()
}

#[test]
fn the_file_is_as_computed_by_hand() {
    let case = Case::new();
    let mut reports = Vec::new();
    let manifest = case.manifest(unchanged);
    rebuild(&manifest, &case.gguf, &case.data, &mut |progress| reports.push(progress)).unwrap();
    assert_eq!(fs::read(&case.data).unwrap(), expected());
    assert_eq!(reports.last(), Some(&Progress::Rebuilding { done: 52, total: 52 }));
    assert!(!partial_path(&case.data).exists());
}

#[test]
fn what_an_interrupted_call_left_is_completed() {
    let case = Case::new();
    let mut left = expected();
    left[..40].fill(0xff);
    left[44] = 1;
    fs::write(partial_path(&case.data), &left).unwrap();
    case.rebuild(unchanged).unwrap();
    assert_eq!(fs::read(&case.data).unwrap(), expected());
}

#[test]
fn tensors_with_the_right_hash_are_kept() {
    let case = Case::new();
    fs::write(partial_path(&case.data), expected()).unwrap();
    // Were a tensor rebuilt, its source would be missed.
    fs::write(&case.gguf, Builder::new(3).build()).unwrap();
    case.rebuild(unchanged).unwrap();
    assert_eq!(fs::read(&case.data).unwrap(), expected());
}

#[test]
fn a_file_of_the_wrong_length_is_mended() {
    let case = Case::new();
    fs::write(&case.data, [expected(), vec![1; 9]].concat()).unwrap();
    case.rebuild(unchanged).unwrap();
    assert_eq!(fs::read(&case.data).unwrap(), expected());
}

#[test]
fn a_wrong_hash_names_the_tensor() {
    let message = Case::new().refusal(|manifest| manifest["tensors"][1]["sha256"] = json!("00"));
    assert!(message.contains("\"norm\"") && message.contains("00 was expected"), "{message}");
}

#[test]
fn shapes_that_do_not_fit_name_the_tensor() {
    let turned = Case::new().refusal(|manifest| {
        manifest["tensors"][0]["shape"] = json!([5, 2]);
        manifest["tensors"][0]["concat_axis"] = json!(1);
    });
    assert!(turned.contains("\"qv\"") && turned.contains("[2, 5]"), "{turned}");
    let axis = Case::new().refusal(|manifest| manifest["tensors"][0]["concat_axis"] = json!(0));
    assert!(axis.contains("\"qv\"") && axis.contains("joined"), "{axis}");
}

#[test]
fn a_missing_source_names_the_gguf_file() {
    let message = Case::new()
        .refusal(|manifest| manifest["tensors"][1]["from"][0]["gguf"] = json!("absent.weight"));
    assert!(message.contains("model.gguf") && message.contains("absent.weight"), "{message}");
}

#[test]
fn an_unstated_number_of_heads_is_refused() {
    let case = Case::new();
    let bytes = Builder::new(3)
        .tensor("blk.0.attn_q.weight", &[2, 4], 0, &f32_bytes(&STORED_Q))
        .tensor("blk.0.attn_v.weight", &[2, 1], 0, &f32_bytes(&V))
        .tensor("norm.weight", &[3], 0, &f32_bytes(&NORM))
        .build();
    fs::write(&case.gguf, bytes).unwrap();
    let message = case.refusal(unchanged);
    assert!(message.contains("llama.attention.head_count"), "{message}");
}

#[test]
fn a_truncated_gguf_is_refused() {
    let case = Case::new();
    let bytes = fs::read(&case.gguf).unwrap();
    fs::write(&case.gguf, &bytes[..bytes.len() - 1]).unwrap();
    let message = case.refusal(unchanged);
    assert!(message.contains("truncated"), "{message}");
}
