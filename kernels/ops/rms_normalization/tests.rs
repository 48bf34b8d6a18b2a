//! Tests of `RMSNormalization`.

use planish_ir::Tensor;

use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

#[test]
fn a_row_is_divided_by_its_root_mean_square() {
    let x = Tensor::from_vec(&[1, 2, 2], vec![3.0f32, 4.0, 0.0, 2.0]);
    let scale = Tensor::from_vec(&[2], vec![1.0f32, 10.0]);
    let case = Case::new("", "RMSNormalization", 23).with("epsilon", 0.0f32);
    let rms = 12.5f32.sqrt();
    let expected = vec![3.0 / rms, 40.0 / rms, 0.0, 20.0 / 2f32.sqrt()];
    assert_close(
        &case.eval(&present(&[&x, &scale]))[0],
        &Tensor::from_vec(&[1, 2, 2], expected),
        1e-6,
    );
}

#[test]
fn several_axes_are_normalised_together() {
    let mut random = Random::new(1);
    let (x, scale) = (random.tensor(&[2, 3, 4]), random.tensor(&[3, 4]));
    let case = Case::new("", "RMSNormalization", 23).with("axis", 1i64);
    let flat = Case::new("", "RMSNormalization", 23);
    let together = case.eval(&present(&[&x, &scale]));
    let x = x.reshaped(vec![2, 12]).unwrap();
    let scale = scale.reshaped(vec![12]).unwrap();
    let expected = flat.eval(&present(&[&x, &scale]));
    assert_close(&together[0].reshaped(vec![2, 12]).unwrap(), &expected[0], 0.0);
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(40);
    let (x, scale, wide) =
        (random.tensor(&[2, 3, 64]), random.tensor(&[64]), random.tensor(&[3, 64]));
    let case = || Case::new("", "RMSNormalization", 23);
    let questions = [
        Question::new(case(), present(&[&x, &scale])).constants(&[1]),
        Question::new(case().with("epsilon", 0.1f32), present(&[&x, &scale])),
        Question::new(case().with("axis", 1i64), present(&[&x, &wide])),
    ];
    assert_agree(&questions, 1e-6);
}
