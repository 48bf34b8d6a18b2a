//! Tests of `NormTransformQuantize`.

use crate::DOMAIN;
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new(DOMAIN, "NormTransformQuantize", 1)
        .with("bits", 4i64)
        .with("epsilon", 1e-3f32)
        .with("clip_min", 0.9f32)
        .outputs(2)
}

#[test]
fn it_is_the_composition() {
    let mut random = Random::new(72);
    let (x, weight) = (random.tensor(&[2, 3, 24]), random.tensor(&[24]));
    let (p1, p2) = (random.tensor(&[4, 4]), random.tensor(&[6, 6]));
    let norm = Case::new("", "RMSNormalization", 23).with("epsilon", 1e-3f32);
    let y = norm.eval(&present(&[&x, &weight])).remove(0);
    let then =
        |name| Case::new(DOMAIN, name, 1).with("bits", 4i64).with("clip_min", 0.9f32).outputs(2);
    let both = then("TransformQuantize").eval(&present(&[&y, &p1, &p2]));
    assert_eq!(case().eval(&present(&[&x, &weight, &p1, &p2])), both);
    let left = then("TransformLeftQuantize").eval(&present(&[&y, &p1]));
    assert_eq!(case().eval(&present(&[&x, &weight, &p1])), left);
    let none = then("DynamicQuantize").eval(&present(&[&y]));
    assert_eq!(case().eval(&present(&[&x, &weight])), none);
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(73);
    let (weight, p1, p2) =
        (random.tensor(&[144]), random.tensor(&[9, 9]), random.tensor(&[16, 16]));
    for rows in [1, 7] {
        let x = random.tensor(&[1, rows, 144]);
        case().assert_kernel_agrees(&present(&[&x, &weight, &p1, &p2]), &[1, 2, 3], 1e-5);
        case().assert_kernel_agrees(&present(&[&x, &weight, &p1]), &[], 1e-5);
        case().assert_kernel_agrees(&present(&[&x, &weight]), &[1], 1e-5);
    }
}
