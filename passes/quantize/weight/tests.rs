//! Scales and codes of small weights.

use super::*;
use crate::quantize::WeightClip;
use crate::transform::Random;

const SEARCH: Clipping = Clipping::Search { importance: None };

fn format(bits: u8, group_size: Option<usize>) -> WeightFormat {
    WeightFormat { bits, group_size }
}

fn normal(n: usize) -> Vec<f32> {
    let mut random = Random::new(4);
    (0..n).map(|_| random.normal() as f32).collect()
}

#[test]
fn the_largest_weight_of_a_column_is_exact() {
    let weight = [0.875, 10.0, -0.4375, 20.0, 0.125, -35.0];
    let result = quantize_columns(&weight, 2, format(4, None), Clipping::Full).unwrap();
    assert_eq!(result.scale.to_f32_vec().unwrap(), [0.125, 5.0]);
    assert_eq!(result.codes.to_i64_vec().unwrap(), [7, 2, -4, 4, 1, -7]);
}

#[test]
fn ties_go_to_even_and_codes_stay_in_range() {
    let rounded = [0.5, 1.5, 2.5, -0.5, -1.5, 9.0, -9.0].map(|x| round(x, 7.0));
    assert_eq!(rounded, [0.0, 2.0, 2.0, 0.0, -2.0, 7.0, -8.0]);
}

#[test]
fn groups_have_scales_of_their_own() {
    let weight = [1.0, 2.0, 3.5, 7.0, 10.0, 20.0, 35.0, 70.0];
    let result = quantize_columns(&weight, 2, format(4, Some(2)), Clipping::Full).unwrap();
    assert_eq!(result.scale.shape(), [2, 2]);
    assert_eq!(result.scale.to_f32_vec().unwrap(), [0.5, 1.0, 5.0, 10.0]);
    assert_eq!(result.codes.to_i64_vec().unwrap(), [2, 2, 7, 7, 2, 2, 7, 7]);
}

#[test]
fn searching_lowers_the_error_the_more_the_fewer_bits() {
    let weight = normal(96 * 33);
    let gain = |bits| {
        let of = |clipping| quantize_columns(&weight, 33, format(bits, None), clipping).unwrap();
        of(SEARCH).squared_error / of(Clipping::Full).squared_error
    };
    let gains = [8, 4, 3, 2].map(gain);
    assert!(gains[0] <= 1.0 && gains[1] < 0.9 && gains[2] < 0.7 && gains[3] < 0.4, "{gains:?}");
}

#[test]
fn codes_of_few_bits_stay_in_their_range() {
    let weight = normal(64 * 5);
    for bits in [2, 3, 4, 8] {
        let result = quantize_columns(&weight, 5, format(bits, Some(16)), SEARCH).unwrap();
        let codes = result.codes.to_i64_vec().unwrap();
        let (low, high) = (codes.iter().min().unwrap(), codes.iter().max().unwrap());
        let limit = 1i64 << (bits - 1);
        assert!(*low >= -limit && *high == limit - 1, "{bits} bits: {low} {high}");
        let expected = if bits == 8 { planish_ir::DataType::I8 } else { planish_ir::DataType::I4 };
        assert_eq!(result.codes.dtype(), expected);
    }
}

#[test]
fn a_weighted_search_lowers_the_weighted_error() {
    let (weight, n) = (normal(128 * 8), 8);
    let importance: Vec<f32> = (0..128).map(|k| if k % 16 == 0 { 1000.0 } else { 1.0 }).collect();
    let error = |importance_of_search| {
        let clipping = Clipping::Search { importance: importance_of_search };
        let result = quantize_columns(&weight, n, format(3, None), clipping).unwrap();
        let codes = result.codes.to_f32_vec().unwrap();
        let scale = result.scale.to_f32_vec().unwrap();
        let term = |i: usize| importance[i / n] * (weight[i] - codes[i] * scale[i % n]).powi(2);
        (0..weight.len()).map(term).sum::<f32>()
    };
    let (weighted, plain) = (error(Some(&importance)), error(None));
    assert!(weighted < 0.8 * plain, "{weighted} {plain}");
    let ones = vec![1.0; 128];
    assert_eq!(error(Some(&ones)), plain);
}

#[test]
fn learned_clips_scale_the_extremes_of_each_group() {
    let weight = [7.0, 1.0, -2.0, -14.0, 3.0, 0.0, -21.0, 0.0];
    let clip = WeightClip { max: vec![0.5, 0.9, 0.5, 1.0], min: vec![1.0, 0.5, 0.25, 1.0] };
    let scales = column_scales(&weight, 2, format(4, Some(2)), Clipping::Learned(&clip)).unwrap();
    // max(0.5 · 7, 2), max(0.9 · 1, 0.5 · 14), max(0.5 · 3, 0.25 · 21), nothing.
    assert_eq!(scales, [3.5 / 7.0, 7.0 / 7.0, 5.25 / 7.0, 1e-8 / 7.0]);
    let codes = round_columns(&weight, 2, format(4, Some(2)), scales).unwrap().codes;
    assert_eq!(codes.to_i64_vec().unwrap(), [7, 1, -4, -8, 4, 0, -8, 0]);
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    fn scales(format: WeightFormat, clipping: Clipping) -> WeightError {
        column_scales(&normal(8 * 2), 2, format, clipping).unwrap_err()
    }
    let short = WeightClip { max: vec![1.0; 2], min: vec![1.0; 1] };
    let error = scales(format(4, None), Clipping::Learned(&short));
    assert_eq!(error.to_string(), "has 2 scales, but 1 were given");
    let error = scales(format(4, None), Clipping::Search { importance: Some(&[1.0; 7]) });
    assert!(matches!(error, WeightError::Length { expected: 8, actual: 7, .. }));
    let error = scales(format(4, Some(3)), Clipping::Full);
    assert_eq!(error, WeightError::GroupSize { group_size: 3 });
    for bad in [-0.5, 0.0, f32::NAN] {
        let clip = WeightClip { max: vec![1.0, bad], min: vec![1.0; 2] };
        let error = scales(format(4, None), Clipping::Learned(&clip));
        assert!(matches!(error, WeightError::Clip(_)), "{error}");
    }
    assert!(round_columns(&normal(8 * 2), 2, format(4, None), vec![1.0; 3]).is_err());
}

#[test]
fn the_error_is_that_of_the_codes() {
    let weight = normal(40 * 5);
    let result = quantize_columns(&weight, 5, format(8, None), SEARCH).unwrap();
    let (codes, scale) = (result.codes.to_f32_vec().unwrap(), result.scale.to_f32_vec().unwrap());
    let error = |(i, x): (usize, &f32)| f64::from(x - codes[i] * scale[i % 5]).powi(2);
    let expected: f64 = weight.iter().enumerate().map(error).sum();
    assert!((result.squared_error - expected).abs() < 1e-9 * expected);
    assert!(expected < 1e-4 * result.squared_norm);
}

#[test]
fn rows_are_rounded_as_columns_of_the_transpose() {
    let weight = normal(20 * 6);
    let turned: Vec<f32> = (0..120).map(|i| weight[i % 20 * 6 + i / 20]).collect();
    let columns = quantize_columns(&weight, 6, format(8, None), SEARCH).unwrap();
    let rows = quantize_rows(&turned, 20, 8, true).unwrap();
    assert_eq!(rows.scale, columns.scale);
    assert_eq!(rows.codes.shape(), [6, 20]);
    let (a, b) = (rows.codes.to_i64_vec().unwrap(), columns.codes.to_i64_vec().unwrap());
    assert!((0..120).all(|i| a[i] == b[i % 20 * 6 + i / 20]));
}

#[test]
fn zeros_stay_zeros_and_infinities_are_refused() {
    let zeros = quantize_columns(&[0.0; 6], 2, format(4, None), SEARCH).unwrap();
    assert_eq!(zeros.codes.to_i64_vec().unwrap(), [0; 6]);
    assert!(zeros.scale.to_f32_vec().unwrap().iter().all(|s| *s > 0.0));
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(quantize_columns(&[1.0, bad], 1, format(4, None), SEARCH).is_err());
        assert!(quantize_rows(&[1.0, bad], 2, 8, true).is_err());
    }
}

/// The operator that learning goes through sees the weight as it is rounded in the end.
#[test]
fn fake_quantize_columns_gives_the_same_values() {
    let op = planish_kernels::ops::find(planish_kernels::DOMAIN, "FakeQuantizeColumns").unwrap();
    let (k, n) = (48, 35);
    let weight = normal(k * n);
    for (bits, group) in [(4, None), (8, None), (4, Some(16))] {
        let result = quantize_columns(&weight, n, format(bits, group), Clipping::Full).unwrap();
        let (codes, scale) =
            (result.codes.to_f32_vec().unwrap(), result.scale.to_f32_vec().unwrap());
        let rows = group.unwrap_or(k);
        let want: Vec<f32> =
            (0..k * n).map(|i| codes[i] * scale[i / n / rows * n + i % n]).collect();
        let node = planish_ir::Node::new("FakeQuantizeColumns", Vec::new());
        let node = node.with("bits", i64::from(bits));
        let node = node.with("block_size", group.unwrap_or(0) as i64);
        let ones = Tensor::from_vec(result.scale.shape(), vec![1.0f32; scale.len()]);
        let weight = Tensor::from_vec(&[k, n], weight.clone());
        let inputs = [Some(weight), Some(ones.clone()), Some(ones)];
        let op_node = planish_kernels::OpNode { node: &node, opset: 1 };
        let y = (op.eval)(&op_node, &inputs).unwrap();
        assert_eq!(y[0].to_f32_vec().unwrap(), want);
    }
}
