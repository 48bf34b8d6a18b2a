//! tract computes from the exports what ONNX Runtime computed when they were made, and from what
//! we write of them exactly what it computes from them.

use std::path::Path;

use planish_models::{TinyModel, tiny_models};
use planish_onnx::{WriteOptions, read_model, write_model};
use planish_oracle::tract_logits;
use planish_runtime::npz::read_npz;

#[test]
fn explore() {
    for tiny in tiny_models() {
        match tract_logits(&tiny.dir.join("model.onnx"), &ids(&tiny)) {
            Ok((shape, values)) => {
                let expected = expected(&tiny, "logits").1;
                println!("{} {shape:?} {:e}", tiny.name, relative_error(&expected, &values));
            }
            Err(error) => println!("{} {error}", tiny.name),
        }
    }
}
fn ids(tiny: &TinyModel) -> Vec<i64> { 
    let arrays = read_npz(&tiny.dir.join("expected.npz")).unwrap();
    arrays.iter().find(|(n, _)| n == "ids").unwrap().1.to_i64().unwrap()
}
fn expected(tiny: &TinyModel, name: &str) -> (Vec<usize>, Vec<f32>) { 
    let arrays = read_npz(&tiny.dir.join("expected.npz")).unwrap();
    let a = &arrays.iter().find(|(n, _)| n == name).unwrap().1;
    (a.shape.clone(), a.to_f32().unwrap())
}
fn relative_error(expected: &[f32], actual: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = expected.iter().zip(actual).fold(0f32, |m, (e, a)| m.max((e - a).abs()));
    worst / largest
}
