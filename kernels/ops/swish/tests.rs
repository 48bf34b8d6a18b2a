//! Tests of `Swish`.

use planish_ir::Tensor;

use crate::ops::support::testing::*;

#[test]
fn known_values() {
    let x = Tensor::from_vec(&[3], vec![-2.0f32, 0.0, 2.0]);
    let swish = |x: f32, a: f32| x / (1.0 + (-a * x).exp());
    for alpha in [1.0f32, 0.5] {
        let out = Case::new("", "Swish", 24).with("alpha", alpha).eval(&present(&[&x]));
        let expected = [-2.0, 0.0, 2.0].map(|x| swish(x, alpha)).to_vec();
        assert_close(&out[0], &Tensor::from_vec(&[3], expected), 1e-6);
    }
}
