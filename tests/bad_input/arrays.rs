//! Arrays that a graph can't be run on.
use planish_runtime::npz::{NpyArray, write_npz};

use crate::support::Bench;

const FORWARD: &str = "forward m --inputs in.npz --outputs out.npz";

fn refuses_arrays(bench: &Bench, arrays: &[(&str, NpyArray)], parts: &[&str]) {
    let named = |(name, array): &(&str, NpyArray)| ((*name).to_owned(), array.clone());
    let arrays: Vec<_> = arrays.iter().map(named).collect();
    write_npz(&bench.path("in.npz"), &arrays).unwrap();
    bench.refuses(FORWARD, parts);
}

#[test]
fn files_that_are_no_archives() {
    let bench = Bench::new();
    let whole = std::fs::read(bench.path("m/expected.npz")).unwrap();
    for contents in [b"".as_slice(), b"no zip", &whole[..whole.len() / 2]] {
        bench.write("in.npz", contents);
        bench.refuses(FORWARD, &["in.npz is no intact .npz archive"]);
    }
    bench.refuses("forward m --inputs m --outputs out.npz", &["cannot read m"]);
}

#[test]
fn arrays_that_are_missing_or_unknown() {
    let bench = Bench::new();
    let ids = || ("input_ids", NpyArray::from_i64(&[1, 2], &[1, 2]));
    refuses_arrays(&bench, &[], &["the input \"input_ids\" is missing"]);
    let unknown = ("colour", NpyArray::from_i64(&[1], &[1]));
    refuses_arrays(&bench, &[ids(), unknown], &["the graph has no input \"colour\""]);
    let cache = ("past_key_values.0.key", NpyArray::from_f32(&[1, 2, 1, 16], &[0.0; 32]));
    refuses_arrays(&bench, &[ids(), cache], &["the input \"past_key_values.", "is missing"]);
}

#[test]
fn arrays_of_another_type_or_shape() {
    let bench = Bench::new();
    let float = NpyArray::from_f32(&[1, 2], &[1.0, 2.0]);
    let parts = ["m/model.onnx", "\"input_ids\" takes int64", "given float"];
    refuses_arrays(&bench, &[("input_ids", float)], &parts);
    for shape in [&[2][..], &[1, 2, 1], &[]] {
        let array = NpyArray::from_i64(shape, &vec![1; shape.iter().product()]);
        refuses_arrays(&bench, &[("input_ids", array)], &["\"input_ids\"", &format!("{shape:?}")]);
    }
    let ids = ("input_ids", NpyArray::from_i64(&[1, 2], &[1, 2]));
    let cache = ("past_key_values.0.key", NpyArray::from_f32(&[1, 2, 1, 15], &[0.0; 30]));
    refuses_arrays(&bench, &[ids, cache], &["\"past_key_values.0.key\"", "15"]);
}

#[test]
fn ids_beyond_the_vocabulary() {
    let bench = Bench::new();
    for id in [512, -513, i64::MAX, i64::MIN] {
        let ids = NpyArray::from_i64(&[1, 2], &[1, id]);
        refuses_arrays(&bench, &[("input_ids", ids)], &["m/model.onnx", "Gather"]);
    }
}

#[test]
fn sizes_that_do_not_go_together() {
    let bench = Bench::new();
    let ids = ("input_ids", NpyArray::from_i64(&[1, 3], &[1, 2, 3]));
    let mask = ("attention_mask", NpyArray::from_i64(&[1, 2], &[1; 2]));
    refuses_arrays(&bench, &[ids, mask], &["m/model.onnx", "the node"]);
}

#[test]
fn arrays_without_elements_are_no_reason_to_panic() {
    let bench = Bench::new();
    for shape in [[0, 3], [1, 0], [0, 0]] {
        let ids = ("input_ids".to_owned(), NpyArray::from_i64(&shape, &[]));
        write_npz(&bench.path("in.npz"), &[ids]).unwrap();
        let output = bench.command(FORWARD).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{shape:?}: {message}");
    }
}

#[test]
fn an_output_file_that_can_not_be_written() {
    let bench = Bench::new();
    let ids = ("input_ids".to_owned(), NpyArray::from_i64(&[1, 2], &[1, 2]));
    write_npz(&bench.path("in.npz"), &[ids]).unwrap();
    for output in ["m", "text.txt/out.npz", "no/such/out.npz"] {
        let line = format!("forward m --inputs in.npz --outputs {output}");
        bench.refuses(&line, &[&format!("cannot write {output}")]);
    }
}
