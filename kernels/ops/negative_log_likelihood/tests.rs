//! Tests of `NegativeLogLikelihood`.

use planish_ir::{DataType, Tensor};

use crate::ops::support::testing::*;
use crate::{DOMAIN, Fact};

fn case() -> Case {
    Case::new(DOMAIN, "NegativeLogLikelihood", 1)
}

fn targets(shape: &[usize], targets: &[i64]) -> Tensor {
    Tensor::from_vec(shape, targets.to_vec())
}

/// The scores of rows of `logits`, one target each.
fn scores(logits: &[&[f32]], of: &[i64]) -> Vec<f32> {
    let rows = Tensor::from_vec(&[logits.len(), logits[0].len()], logits.concat());
    case().eval(&present(&[&rows, &targets(&[of.len()], of)]))[0].to_f32_vec().unwrap()
}

#[test]
fn it_is_the_logarithm_of_softmax() {
    let mut random = Random::new(75);
    // Rows that are and are not whole packs of elements, shorter and longer than a block.
    for n in [1, 7, 8, 64, 1001, 12_000, 12_003] {
        let logits = random.tensor(&[2, 3, n]);
        let of: Vec<i64> = (0..6).map(|_| random.int(0, n as i64 - 1)).collect();
        let soft = Case::new("", "LogSoftmax", 13).eval(&present(&[&logits]));
        let soft = soft[0].to_f32_vec().unwrap();
        let at = |(row, target): (usize, &i64)| -soft[row * n + *target as usize];
        let expected = of.iter().enumerate().map(at).collect();
        let found = case().eval(&present(&[&logits, &targets(&[2, 3], &of)]));
        assert_close(&found[0], &Tensor::from_vec(&[2, 3], expected), 1e-6);
    }
}

#[test]
fn great_logits_do_not_overflow_and_masked_ones_do_not_count() {
    let found = scores(&[&[3e4, 0.0], &[f32::NEG_INFINITY, 0.0]], &[1, 1]);
    assert_eq!(found, [3e4, 0.0]);
    assert_eq!(scores(&[&[f32::NEG_INFINITY, 0.0]], &[0]), [f32::INFINITY]);
    let many = vec![-700.0; 49_152];
    let found = scores(&[&many], &[7])[0];
    assert!((found - 49_152f32.ln()).abs() < 1e-5, "{found}");
}

#[test]
fn what_is_no_number_shows() {
    for n in [9, 4096] {
        for bad in [f32::NAN, f32::INFINITY] {
            for index in [0, 4, n - 1] {
                let mut row = vec![0.0; n];
                row[index] = bad;
                let found = scores(&[&row, &vec![0.0; n]], &[1, 1]);
                assert!(found[0].is_nan() && found[1].is_finite(), "{bad} at {index}");
            }
        }
        assert!(scores(&[&vec![f32::NEG_INFINITY; n]], &[0])[0].is_nan());
        let outside = scores(&[&vec![0.0; n], &vec![0.0; n]], &[-1, n as i64]);
        assert!(outside.iter().all(|score| score.is_nan()));
    }
    let none = Tensor::from_vec(&[1, 0], Vec::<f32>::new());
    let found = case().eval(&present(&[&none, &targets(&[1], &[0])]));
    assert!(found[0].to_f32_vec().unwrap()[0].is_nan());
}

#[test]
fn targets_must_belong_to_the_logits() {
    let ids = |shape: &[&str]| Fact { dtype: Some(DataType::I64), ..fact(shape) };
    let logits = fact(&["b", "s", "9"]);
    let found = case().infer(&[logits.clone(), ids(&["c", "t"])]).unwrap();
    assert_eq!(found, [fact(&["b", "s"])]);
    let found = case().infer(&[Fact::unknown(), ids(&["c", "t"])]).unwrap();
    assert_eq!(found, [fact(&["c", "t"])]);
    assert!(case().infer(&[logits.clone(), ids(&["b"])]).is_err());
    assert!(case().infer(&[logits, fact(&["b", "s"])]).is_err(), "targets are integers");
    assert!(case().infer(&[fact(&["2", "9"]), ids(&["3"])]).is_err());
    let inputs = present(&[&Random::new(76).tensor(&[2, 9]), &targets(&[3], &[0; 3])]);
    assert!((case().op().eval)(&case().view(), &inputs).is_err());
}
