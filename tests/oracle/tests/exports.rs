//! tract computes from the exports what ONNX Runtime computed when they were made, and from what
//! we write of them exactly what it computes from them.

mod common;

use common::{
    assert_close, assert_refused, expected, file_of, logits_of, logits_of_written, thorough_models,
};

/// The exports that tract can't run, and its reason.
const REFUSED: [(&str, &str); 3] = [
    ("llama-dynamo23", "FlashSDPA: Mask must be floating point"),
    ("phi3-dynamo23", "FlashSDPA: Mask must be floating point"),
    ("qwen2-genai", "GroupQueryAttention: packed QKV (absent key/value) is unsupported"),
];

fn reason_against(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

#[test]
fn tract_agrees_with_onnx_runtime() {
    for tiny in thorough_models() {
        let expected = expected(&tiny);
        let actual = logits_of(&file_of(&tiny), &expected.ids);
        match reason_against(&tiny.name) {
            Some(reason) => assert_refused(&tiny.name, reason, &actual),
            None => assert_close(&tiny.name, &expected.logits, &actual.unwrap()),
        }
    }
}

#[test]
fn what_we_write_gives_the_same_bits() {
    for tiny in thorough_models() {
        let ids = expected(&tiny).ids;
        let model = planish_onnx::read_model(&file_of(&tiny)).unwrap();
        let actual = logits_of_written(&model, &ids);
        match reason_against(&tiny.name) {
            Some(reason) => assert_refused(&tiny.name, reason, &actual),
            None => {
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let (original, copy) = (logits_of(&file_of(&tiny), &ids).unwrap(), actual.unwrap());
                assert_eq!(original.0, copy.0, "{}", tiny.name);
                assert_eq!(bits(&original.1), bits(&copy.1), "{}", tiny.name);
            }
        }
    }
}

#[test]
fn every_refused_export_is_there() {
    let names: Vec<String> = thorough_models().into_iter().map(|tiny| tiny.name).collect();
    for (name, _) in REFUSED {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
}
