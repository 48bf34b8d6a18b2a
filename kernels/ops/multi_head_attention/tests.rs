//! Tests of `MultiHeadAttention`.

use planish_ir::Tensor;

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;
use crate::{Fact, MICROSOFT};

fn case() -> Case {
    Case::new(MICROSOFT, "MultiHeadAttention", 1).with("num_heads", 4i64).outputs(3)
}

#[test]
fn symbolic_shapes_are_exact() {
    let x = fact(&["b", "s", "32"]);
    let past = fact(&["b", "4", "past", "8"]);
    let absent = Fact::absent;
    let inputs =
        [x.clone(), x.clone(), x, absent(), absent(), absent(), past.clone(), past.clone()];
    let out = case().infer(&inputs).unwrap();
    assert_eq!(out[0], fact(&["b", "s", "32"]));
    assert_eq!(out[1], fact(&["b", "4", "past + s", "8"]));
    assert_eq!(out[2], out[1]);
}

#[test]
fn what_is_not_covered_is_refused() {
    let x = Random::new(3).tensor(&[1, 2, 32]);
    let lengths = Tensor::from_vec(&[1], vec![2i32]);
    let without_heads = case().with("num_heads", 0i64);
    let packed = [Some(Random::new(3).tensor(&[1, 2, 4, 3, 8]))];
    let mut masked = present(&[&x, &x, &x]);
    masked.extend([None, Some(lengths)]);
    let mut short = present(&[&x, &x, &x]);
    short.push(Some(Random::new(3).tensor(&[95])));
    for (inputs, what) in
        [(&packed[..], "in one"), (&masked, "a mask of keys"), (&short, "too short")]
    {
        let refused = (case().op().eval)(&case().view(), inputs).unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    }
    let refused = (without_heads.op().eval)(&without_heads.view(), &present(&[&x, &x, &x]));
    assert!(refused.unwrap_err().to_string().contains("num_heads"));
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(61);
    let mut questions = Vec::new();
    for (seq, n_past, causal) in [(6usize, 0usize, 1i64), (3, 4, 1), (1, 7, 0), (3, 2, 0)] {
        let total = seq + n_past;
        let projections = [(); 3].map(|()| random.tensor(&[2, seq, 32]));
        let mut inputs: Vec<Option<Tensor>> = projections.map(Some).into();
        inputs.push((n_past != 4).then(|| random.tensor(&[96])));
        inputs.push(None);
        inputs.push((causal == 0).then(|| random.tensor(&[1, 1, seq, total])));
        inputs.extend([(); 2].map(|()| Some(random.tensor(&[2, 4, n_past, 8]))));
        let case = case().with("unidirectional", causal);
        let case = if seq == 3 { case.with("scale", 0.2f32) } else { case };
        questions.push(Question::new(case, inputs));
    }
    assert_agree(&questions, 1e-5);
}
