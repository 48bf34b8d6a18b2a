//! A model of more than 2 GB: read without taking the memory of its weights, written piece by
//! piece. Alone in its file, as the limit that it sets is the whole process's.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::proto::{graph, model, tensor};
use planish_ir::Model;
use planish_onnx::proto::{GraphProto, StringStringEntryProto, TensorProto};
use planish_onnx::{ExternalData, ValueInfo, WriteError, WriteOptions, read_model, write_model};
use prost::Message;

/// Three weights of 768 MiB: the last one ends beyond 2 GiB, in the file as read and as written.
const N_WEIGHTS: u64 = 3;
const SHAPE: [i64; 2] = [192, 1 << 20];
const BYTES: u64 = (4 * 192) << 20;
/// Memory that this process may allocate: less than one weight needs.
const LIMIT: u64 = 256 << 20;
/// What reading may add to its resident memory.
const READING: u64 = 16 << 20;

/// The element at the start or the end of a weight; all others are 0.
fn mark(weight: u64, end: bool) -> f32 {
    1.0 + 2.0 * weight as f32 + f32::from(u8::from(end))
}

/// A model beside a sparse file, which takes no room on the disk.
fn write_original(folder: &Path) -> PathBuf {
    let data = File::create(folder.join("weights.bin")).unwrap();
    data.set_len(N_WEIGHTS * BYTES).unwrap();
    let mut weights = Vec::new();
    for i in 0..N_WEIGHTS {
        data.write_all_at(&mark(i, false).to_le_bytes(), i * BYTES).unwrap();
        data.write_all_at(&mark(i, true).to_le_bytes(), (i + 1) * BYTES - 4).unwrap();
        weights.push(weight(i));
    }
    let names: Vec<String> = (0..N_WEIGHTS).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let file = GraphProto { initializer: weights, ..graph(&[], vec![], &names) };
    let path = folder.join("model.onnx");
    fs::write(&path, model(file).encode_to_vec()).unwrap();
    path
}

fn name(i: u64) -> String {
    format!("weight_{i}")
}

fn weight(i: u64) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    TensorProto {
        data_location: Some(1),
        external_data: vec![
            entry("location", "weights.bin".to_owned()),
            entry("offset", (i * BYTES).to_string()),
            entry("length", BYTES.to_string()),
        ],
        ..tensor(&name(i), 1, &SHAPE, &[])
    }
}

/// Memory that is mapped from files does not count.
fn limit_allocations(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the call reads the structure and nothing else.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Resident memory of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

fn assert_weights(model: &Model) {
    for i in 0..N_WEIGHTS {
        let value = model.graph.find_value(&name(i)).unwrap();
        let bytes = model.graph.constant(value).unwrap().bytes();
        assert_eq!(bytes.len() as u64, BYTES);
        let ends = [&bytes[..4], &bytes[bytes.len() - 4..]];
        let expected = [mark(i, false), mark(i, true)].map(f32::to_le_bytes);
        assert_eq!(ends, [&expected[0][..], &expected[1]], "weight {i}");
        assert_eq!(bytes[4..1 << 20], vec![0; (1 << 20) - 4], "weight {i}");
    }
}

#[test]
fn a_model_of_more_than_2_gb_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_original(folder.path());
    limit_allocations(LIMIT);

    let before = resident();
    let model = read_model(&path).unwrap();
    let taken = resident().saturating_sub(before);
    assert!(taken < READING, "reading took {taken} bytes");
    assert_weights(&model);

    let copy = folder.path().join("copy.onnx");
    let inline = write_model(&model, &copy, &WriteOptions::default());
    assert!(matches!(inline, Err(WriteError::TooLarge { .. })), "{inline:?}");
    assert!(!copy.exists());
    let external_data = ExternalData::Beside { file_name: "copy.bin".into(), min_bytes: 1024 };
    let options = WriteOptions { external_data, value_info: ValueInfo::Declared };
    let report = write_model(&model, &copy, &options).unwrap();
    assert_eq!(report.external_bytes, N_WEIGHTS * BYTES);
    assert_weights(&read_model(&copy).unwrap());
}
