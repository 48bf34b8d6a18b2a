//! Tests of `SwiGLU`.

use planish_ir::Tensor;

use crate::DOMAIN;
use crate::ops::support::testing::*;

#[test]
fn the_gate_goes_through_silu() {
    let mut random = Random::new(71);
    let (gate, up) = (random.tensor(&[2, 3, 100]), random.tensor(&[2, 3, 100]));
    let silu = Case::new("", "Swish", 24).eval(&present(&[&gate]))[0].to_f32_vec().unwrap();
    let up_values = up.to_f32_vec().unwrap();
    let expected = silu.iter().zip(&up_values).map(|(a, b)| a * b).collect();
    let case = Case::new(DOMAIN, "SwiGLU", 1);
    let inputs = present(&[&gate, &up]);
    assert_close(&case.eval(&inputs)[0], &Tensor::from_vec(&[2, 3, 100], expected), 1e-7);
    case.assert_kernel_agrees(&inputs, &[], 1e-6);
}
