//! Tests of `FusedMatMul`.

use planish_cpu::{Isa, ThreadPool, multiplies_bf16};
use planish_ir::Tensor;

use crate::buffers::BufferPool;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;
use crate::{CpuContext, MICROSOFT, ProductPrecision};

fn case(trans_a: i64, trans_b: i64) -> Case {
    Case::new(MICROSOFT, "FusedMatMul", 1).with("transA", trans_a).with("transB", trans_b)
}

/// `shape` with its last two sizes swapped.
fn swapped(shape: &[usize]) -> Vec<usize> {
    super::turned(shape, true)
}

/// `x` with its last two axes swapped, by the operator for that.
fn turned(x: &Tensor) -> Tensor {
    let rank = x.shape().len() as i64;
    let perm: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
    Case::new("", "Transpose", 13).with("perm", perm).eval(&present(&[x])).remove(0)
}

/// Shapes of the factors before any is transposed.
const SHAPES: [(&[usize], &[usize]); 7] = [
    (&[3, 4], &[4, 2]),
    (&[2, 5, 32], &[32, 48]),
    (&[5, 7], &[2, 3, 7, 4]),
    (&[2, 1, 3, 8], &[5, 8, 6]),
    (&[2, 3, 4], &[1, 4, 3]),
    (&[1, 3, 4], &[2, 4, 3]),
    (&[40, 30, 50], &[40, 50, 20]),
];

#[test]
fn it_is_matmul_of_transposed_factors() {
    let mut random = Random::new(70);
    for (a, b) in SHAPES {
        let (a, b) = (random.tensor(a), random.tensor(b));
        let product = Case::new("", "MatMul", 13).eval(&present(&[&a, &b])).remove(0);
        let data = product.to_f32_vec().unwrap().iter().map(|x| -0.5 * x).collect();
        let expected = Tensor::from_vec(product.shape(), data);
        for (trans_a, trans_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let a = if trans_a == 1 { turned(&a) } else { a.clone() };
            let b = if trans_b == 1 { turned(&b) } else { b.clone() };
            let case = case(trans_a, trans_b).with("alpha", -0.5f32);
            let inputs = present(&[&a, &b]);
            assert_close(&case.eval(&inputs)[0], &expected, 1e-6);
            case.assert_kernel_agrees(&inputs, &[], 1e-5);
        }
    }
}

#[test]
fn large_products_are_rounded_only_on_request() {
    let mut random = Random::new(71);
    let (a, b) = (random.tensor(&[2, 100, 128]), random.tensor(&[96, 128]));
    let (pool, buffers, mut caches) = (ThreadPool::new(2), BufferPool::new(), Vec::new());
    let mut context = CpuContext::new(&pool, &buffers, &mut caches);
    let inputs = present(&[&a, &b]);
    let exact = case(0, 1).eval(&inputs).remove(0);
    let plain = case(0, 1).run_cpu_in(&mut context, &inputs, &[]).unwrap().remove(0);
    assert_close(&plain, &exact, 1e-6);
    context.precision = ProductPrecision::BF16;
    let rounded = case(0, 1).run_cpu_in(&mut context, &inputs, &[]).unwrap().remove(0);
    assert_close(&rounded, &exact, 1e-2);
    let same = rounded.to_f32_vec().unwrap() == plain.to_f32_vec().unwrap();
    assert_eq!(same, !multiplies_bf16(Isa::best()));
}

#[test]
fn symbolic_shapes_are_exact() {
    let facts = [fact(&["b", "s", "576"]), fact(&["192", "576"])];
    assert_eq!(case(0, 1).infer(&facts).unwrap()[0], fact(&["b", "s", "192"]));
    assert!(case(0, 0).infer(&facts).is_err());
    let facts = [fact(&["b", "s", "k"]), fact(&["b", "s", "n"])];
    assert_eq!(case(1, 0).infer(&facts).unwrap()[0], fact(&["b", "k", "n"]));
}

#[test]
fn what_is_not_taken_is_refused() {
    let mut random = Random::new(72);
    let x = random.tensor(&[2, 2, 2]);
    for name in ["transBatchA", "transBatchB"] {
        let case = case(0, 0).with(name, 1i64);
        assert!(case.infer(&[fact(&["2", "2", "2"]), fact(&["2", "2", "2"])]).is_err());
        assert!(super::eval(&case.view(), &present(&[&x, &x])).is_err());
        assert!(super::cpu::cpu(&case.view(), &[]).is_err());
    }
    let integers = Tensor::from_vec(&[2, 2], vec![1i64, 2, 3, 4]);
    assert!(super::eval(&case(0, 0).view(), &present(&[&integers, &integers])).is_err());
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(73);
    let mut questions = Vec::new();
    for (a, b) in SHAPES {
        for (trans_a, trans_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let a = random.tensor(&if trans_a == 1 { swapped(a) } else { a.to_vec() });
            let b = random.tensor(&if trans_b == 1 { swapped(b) } else { b.to_vec() });
            let case = case(trans_a, trans_b).with("alpha", 0.75f32);
            questions.push(Question::new(case, present(&[&a, &b])));
        }
    }
    // The axes of a vector can't be swapped.
    for (a, b) in [(&[6][..], &[6, 3][..]), (&[3, 6], &[6]), (&[6], &[6])] {
        let (a, b) = (random.tensor(a), random.tensor(b));
        let (trans_a, trans_b) = (i64::from(a.shape().len() == 1), i64::from(b.shape().len() == 1));
        questions.push(Question::new(case(trans_a, trans_b), present(&[&a, &b])));
    }
    assert_agree(&questions, 1e-5);
}
