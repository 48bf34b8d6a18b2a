//! Tests of common.

use planish_ir::{DataType, Dim, Tensor};

use super::numbers::Numbers;
use super::pick::take;
use super::plan::Plan;
use super::{axes, broadcast, index};

fn dims(text: &[&str]) -> Vec<Dim> {
    text.iter().map(|dim| Dim::parse(dim)).collect()
}

#[test]
fn symbolic_shapes_broadcast() {
    let join = |a: &[&str], b: &[&str]| broadcast::dims(&dims(a), &dims(b)).unwrap();
    assert_eq!(join(&["batch", "1", "8"], &["seq", "1"]), dims(&["batch", "seq", "8"]));
    assert_eq!(join(&["seq"], &["4"]), dims(&["4"]), "a number is surer than a symbol");
    assert_eq!(join(&["total"], &["past + seq"]), dims(&["total"]), "the first of two symbols");
    assert_eq!(join(&[], &["0", "seq"]), dims(&["0", "seq"]));
    let error = broadcast::dims(&dims(&["2", "3"]), &dims(&["4"])).unwrap_err().to_string();
    assert_eq!(error, "the shapes [2, 3] and [4] do not broadcast");
}

#[test]
fn numeric_shapes_broadcast() {
    assert_eq!(broadcast::shapes(&[2, 1], &[3]).unwrap(), [2, 3]);
    assert_eq!(broadcast::shapes(&[0], &[1]).unwrap(), [0]);
    assert!(broadcast::shapes(&[0], &[2]).is_err());
    assert_eq!(broadcast::strides(&[3, 1], &[2, 3, 4]), [0, 1, 0]);
}

#[test]
fn axes_are_checked() {
    assert_eq!(axes::axes(&[-1, 0], 3).unwrap(), [2, 0]);
    for list in [[3, 0], [-4, 0], [0, -3], [i64::MIN, i64::MAX]] {
        assert!(axes::axes(&list, 3).is_err(), "{list:?}");
    }
}

#[test]
fn like_axes_are_walked_as_one() {
    let plan = Plan::new([&[2, 3, 4], &[2, 3, 4]], &[2, 3, 4]);
    assert_eq!((plan.inner, plan.steps), (24, [1, 1]));
    let plan = Plan::new([&[2, 3, 4], &[4]], &[2, 3, 4]);
    assert_eq!((plan.inner, plan.steps), (4, [1, 1]));
    let plan = Plan::new([&[2, 3, 4], &[2, 1, 1]], &[2, 3, 4]);
    assert_eq!((plan.inner, plan.steps), (12, [1, 0]));
    let mut rows = Vec::new();
    plan.walk(6, 18, |at, n, offsets| rows.push((at, n, offsets)));
    assert_eq!(rows, [(0, 6, [6, 0]), (6, 12, [12, 1])]);
}

#[test]
fn elements_of_every_width_are_taken() {
    let nibbles = Tensor::from_int4_codes(&[3], &[-8, 3, 7]);
    let taken = take(&nibbles, &[2, 1], [2, 0].into_iter()).unwrap();
    assert_eq!(taken.to_i64_vec().unwrap(), [7, -8]);
    let strings = Tensor::from_strings(vec![2], vec!["a".into(), "b".into()]).unwrap();
    let taken = take(&strings, &[1], [1].into_iter()).unwrap();
    assert_eq!(taken.strings().unwrap(), ["b"]);
    assert!(take(&Tensor::scalar(1.0f32), &[1], [1].into_iter()).is_err(), "out of bounds");
    assert!(take(&Tensor::scalar(1.0f32), &[2], [0].into_iter()).is_err(), "too few");
}

#[test]
fn numbers_are_converted() {
    let floats = |values: &[f64], dtype| {
        let n = values.len();
        Numbers::Floats(values.to_vec()).write(dtype, &[n]).unwrap().to_i64_vec().unwrap()
    };
    assert_eq!(floats(&[1.9, -1.9, f64::NAN, 3e9], DataType::I32), [1, -1, 0, i64::from(i32::MAX)]);
    assert_eq!(floats(&[300.0, -9.0], DataType::U8), [44, 247]);
    assert_eq!(floats(&[-9.0, 8.5, 7.9], DataType::I4), [7, -8, 7]);
    assert_eq!(floats(&[0.1, 0.0, f64::NAN], DataType::Bool), [1, 0, 1]);
    let ints = Numbers::Ints(vec![i128::from(u64::MAX), -1]).write(DataType::U64, &[2]).unwrap();
    assert_eq!(Numbers::read(&ints).unwrap(), Numbers::Ints(vec![i128::from(u64::MAX); 2]));
    assert!(Numbers::Ints(vec![1]).write(DataType::F8E5M2, &[1]).is_err());
    assert!(Numbers::Ints(vec![1]).write(DataType::I8, &[2]).is_err(), "a wrong count");
}

#[test]
fn coordinates_run_in_row_major_order() {
    let all: Vec<_> = index::coordinates(&[2, 2]).collect();
    assert_eq!(all, [[0, 0], [0, 1], [1, 0], [1, 1]]);
    assert_eq!(index::coordinates(&[]).count(), 1);
    assert_eq!(index::coordinates(&[3, 0]).count(), 0);
    assert!(index::count(&[usize::MAX, 2]).is_err());
    assert!(index::wrap(-4, 3).is_err());
}
