//! Tests of `SwiGLUTransformQuantize`.

use crate::DOMAIN;
use crate::ops::support::testing::*;

#[test]
fn it_is_the_composition_and_the_kernel_agrees() {
    let mut random = Random::new(74);
    let (p1, p2) = (random.tensor(&[12, 12]), random.tensor(&[8, 8]));
    let case =
        |name| Case::new(DOMAIN, name, 1).with("bits", 4i64).with("clip_max", 0.9f32).outputs(2);
    for rows in [1, 5] {
        let (gate, up) = (random.tensor(&[2, rows, 96]), random.tensor(&[2, rows, 96]));
        let y = Case::new(DOMAIN, "SwiGLU", 1).eval(&present(&[&gate, &up])).remove(0);
        let fused = case("SwiGLUTransformQuantize");
        let inputs = present(&[&gate, &up, &p1, &p2]);
        let expected = case("TransformQuantize").eval(&present(&[&y, &p1, &p2]));
        assert_eq!(fused.eval(&inputs), expected);
        fused.assert_kernel_agrees(&inputs, &[2, 3], 1e-5);
        let inputs = present(&[&gate, &up]);
        assert_eq!(fused.eval(&inputs), case("DynamicQuantize").eval(&present(&[&y])));
        fused.assert_kernel_agrees(&inputs, &[], 1e-5);
    }
}
