//! Tests of `Inverse`.

use planish_ir::Tensor;

use crate::MICROSOFT;
use crate::op::OpError;
use crate::ops::support::oracle::{Question, assert_agree};
use crate::ops::support::testing::*;

fn case() -> Case {
    Case::new(MICROSOFT, "Inverse", 1)
}

/// The product of row-major `[n, n]` matrices, the first transposed where `trans_a`.
fn product(a: &[f64], b: &[f64], n: usize, trans: (bool, bool)) -> Vec<f64> {
    let at = |x: &[f64], t: bool, i: usize, j: usize| if t { x[j * n + i] } else { x[i * n + j] };
    let sum = |i, j| (0..n).map(|k| at(a, trans.0, i, k) * at(b, trans.1, k, j)).sum();
    (0..n * n).map(|e| sum(e / n, e % n)).collect()
}

fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f32_vec().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn the_product_with_the_inverse_is_the_identity() {
    let mut random = Random::new(101);
    for n in [1, 2, 5, 30] {
        let x = random.tensor(&[n, n]);
        let y = case().eval(&present(&[&x]));
        let identity = product(&f64s(&x), &f64s(&y[0]), n, (false, false));
        for (e, v) in identity.iter().enumerate() {
            let want = if e / n == e % n { 1.0 } else { 0.0 };
            assert!((v - want).abs() < 1e-4, "{n}: [{}, {}] is {v}", e / n, e % n);
        }
    }
}

#[test]
fn the_kernel_agrees() {
    let mut random = Random::new(102);
    for shape in [vec![24, 24], vec![3, 2, 17, 17], vec![100, 100], vec![2, 0, 0]] {
        case().assert_kernel_agrees(&present(&[&random.tensor(&shape)]), &[], 1e-5);
    }
}

#[test]
fn onnx_runtime_agrees() {
    let mut random = Random::new(103);
    let mut question = |shape: &[usize]| Question::new(case(), present(&[&random.tensor(shape)]));
    assert_agree(&[question(&[8, 8]), question(&[2, 3, 12, 12])], 1e-4);
}

#[test]
fn a_singular_matrix_is_an_error_that_says_so() {
    let singular = Tensor::from_vec(&[2, 2], vec![1.0f32, 2.0, 2.0, 4.0]);
    let op = crate::ops::find(MICROSOFT, "Inverse").unwrap();
    let case = case();
    let error = |result: Result<Vec<Tensor>, OpError>| result.unwrap_err().to_string();
    let said = error((op.eval)(&case.view(), &present(&[&singular])));
    assert!(said.contains("singular"), "{said}");
    assert!(
        (op.eval)(&case.view(), &present(&[&Tensor::from_vec(&[0], vec![0.0f32; 0])])).is_err()
    );
    assert!(case.infer(&[fact(&["2", "3"])]).is_err());
}

/// The rule, computed by hand: dX = −Yᵀ · dY · Yᵀ.
#[test]
fn the_formula_of_the_rule_is_the_gradient() {
    let (n, mut random) = (5, Random::new(104));
    let (x, dy) = (random.tensor(&[n, n]), f64s(&random.tensor(&[n, n])));
    let x = f64s(&x);
    let y = inverted(&x, n);
    let left = product(&y, &dy, n, (true, false));
    let dx = product(&left, &y, n, (false, true));
    let loss = |x: &[f64]| inverted(x, n).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>();
    for (e, dx) in dx.iter().enumerate() {
        let moved = |by: f64| {
            let mut x = x.clone();
            x[e] += by;
            loss(&x)
        };
        let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
        assert!((numeric + dx).abs() < 1e-4 * dx.abs().max(1.0), "{e}: {numeric}, {}", -dx);
    }
}

/// The inverse by Cramer's rule, in f64.
fn inverted(x: &[f64], n: usize) -> Vec<f64> {
    let whole = determinant(x, n);
    let cofactor = |i, j| sign(i + j) * determinant(&without(x, n, i, j), n - 1);
    (0..n * n).map(|e| cofactor(e % n, e / n) / whole).collect()
}

/// The determinant, expanded along the first row.
fn determinant(x: &[f64], n: usize) -> f64 {
    let term = |j| sign(j) * x[j] * determinant(&without(x, n, 0, j), n - 1);
    if n == 0 { 1.0 } else { (0..n).map(term).sum() }
}

/// A matrix without row `i` and column `j`.
fn without(x: &[f64], n: usize, i: usize, j: usize) -> Vec<f64> {
    (0..n * n).filter(|e| e / n != i && e % n != j).map(|e| x[e]).collect()
}

fn sign(n: usize) -> f64 {
    if n.is_multiple_of(2) { 1.0 } else { -1.0 }
}

#[test]
fn the_rule_multiplies_from_both_sides() {
    let (graph, gradients) = case().differentiate(&[fact(&["4", "4"])]);
    let made_by = |value| graph.node(graph.producer(value).unwrap().0);
    let [x, dy] = graph.inputs[..] else { panic!("two inputs") };
    let negative = made_by(gradients[0].unwrap());
    assert_eq!(negative.op_type, "Neg");
    let both = made_by(negative.inputs[0].unwrap());
    let left = made_by(both.inputs[0].unwrap());
    for node in [both, left] {
        assert_eq!((node.domain.as_str(), node.op_type.as_str()), (MICROSOFT, "FusedMatMul"));
    }
    let y = left.inputs[0].unwrap();
    assert_eq!((made_by(y).op_type.as_str(), made_by(y).inputs[0]), ("Inverse", Some(x)));
    assert_eq!((left.inputs[1], both.inputs[1]), (Some(dy), Some(y)));
    assert_eq!((left.int("transA", 0), left.int("transB", 0)), (1, 0));
    assert_eq!((both.int("transA", 0), both.int("transB", 0)), (0, 1));
}
