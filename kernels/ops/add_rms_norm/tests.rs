//! Tests of `AddRMSNorm`.

use crate::ops::support::testing::*;
use crate::{DOMAIN, MICROSOFT};

#[test]
fn it_is_the_skip_normalisation() {
    let mut random = Random::new(70);
    let (x, skip, weight) =
        (random.tensor(&[2, 3, 64]), random.tensor(&[2, 3, 64]), random.tensor(&[64]));
    let inputs = present(&[&x, &skip, &weight]);
    let case = Case::new(DOMAIN, "AddRMSNorm", 1).with("epsilon", 1e-3f32).outputs(2);
    let plain = Case::new(MICROSOFT, "SkipSimplifiedLayerNormalization", 1).outputs(4);
    let expected = plain.with("epsilon", 1e-3f32).eval(&inputs);
    let out = case.eval(&inputs);
    assert_close(&out[0], &expected[0], 0.0);
    assert_close(&out[1], &expected[3], 0.0);
    case.assert_kernel_agrees(&inputs, &[2], 1e-5);
    case.assert_kernel_agrees(&inputs, &[], 1e-5);
}
