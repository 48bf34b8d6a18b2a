//! GPTQ against the loop of the paper, and what it is good for.

use super::*;
use crate::quantize::{Clipping, column_scales, round_columns};
use crate::transform::{Matrix, Random, inverse};

fn format(bits: u8, group_size: Option<usize>) -> WeightFormat {
    WeightFormat { bits, group_size }
}

fn normal(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.normal() as f32).collect()
}

/// Rows of `k` channels that share a few factors, as activations do.
fn correlated(random: &mut Random, n_rows: usize, k: usize) -> Vec<f32> {
    let n_factors = k / 8;
    let loadings = normal(random, n_factors * k);
    let mut rows = Vec::new();
    for _ in 0..n_rows {
        let factors = normal(random, n_factors);
        let shared =
            |j: usize| (0..n_factors).map(|f| factors[f] * loadings[f * k + j]).sum::<f32>();
        rows.extend((0..k).map(|j| shared(j) + 0.3 * random.normal() as f32));
    }
    rows
}

/// Σ ‖X · (W − Ŵ)‖² = Σ over columns of eᵀ · H · e.
fn output_error(hessian: &Hessian, weight: &[f32], n: usize, result: &QuantizedWeight) -> f64 {
    let (codes, scale) = (result.codes.to_f32_vec().unwrap(), result.scale.to_f32_vec().unwrap());
    let k = weight.len() / n;
    let group_size = k / (scale.len() / n);
    let error = |i: usize, j: usize| {
        let scale = scale[i / group_size * n + j];
        f64::from(weight[i * n + j] - scale * codes[i * n + j])
    };
    let column = |j: usize| {
        let errors: Vec<f64> = (0..k).map(|i| error(i, j)).collect();
        let products = (0..k).map(|i| {
            let sum = hessian.row(i).iter().zip(&errors).map(|(h, e)| h * e).sum::<f64>();
            sum * errors[i]
        });
        products.sum::<f64>()
    };
    (0..n).map(column).sum()
}

/// The algorithm as the paper has it (equations 2 and 3), with the inverse Hessian updated after
/// each channel, in f64: rows of codes in the order of the channels.
fn plain_gptq(
    hessian: &Hessian,
    weight: &[f32],
    n: usize,
    scales: &[f32],
    bits: u8,
    damp: f64,
) -> Vec<i64> {
    let k = hessian.n_channels();
    let qmax = f64::from(largest_code(bits));
    let added = damp * hessian.mean_diagonal();
    let damped = |i, j| hessian.row(i)[j] + if i == j { added } else { 0.0 };
    let mut inverted = inverse(&Matrix::from_fn(k, k, damped)).unwrap();
    let mut weight: Vec<f64> = weight.iter().map(|w| f64::from(*w)).collect();
    let mut codes = Vec::new();
    for i in 0..k {
        let pivot = inverted[(i, i)];
        for j in 0..n {
            let (w, scale) = (weight[i * n + j], f64::from(scales[j]));
            let code = (w / scale).round_ties_even().clamp(-qmax - 1.0, qmax);
            codes.push(code as i64);
            let error = (w - code * scale) / pivot;
            (i + 1..k).for_each(|l| weight[l * n + j] -= error * inverted[(i, l)]);
        }
        let column = inverted.row(i).to_vec();
        for a in i + 1..k {
            for b in i + 1..k {
                inverted[(a, b)] -= column[a] * column[b] / pivot;
            }
        }
    }
    codes
}

/// A Hessian, a weight `[k, n]` and its scales.
fn case(k: usize, n: usize, format: WeightFormat) -> (Hessian, Vec<f32>, Vec<f32>) {
    let mut random = Random::new(k as u64);
    let hessian = Hessian::of_rows(&correlated(&mut random, 2 * k, k), k);
    let weight = normal(&mut random, k * n);
    let clipping = Clipping::Search { importance: None };
    let scales = column_scales(&weight, n, format, clipping).unwrap();
    (hessian, weight, scales)
}

#[test]
fn codes_are_those_of_the_papers_loop() {
    for (k, n, bits) in [(2, 1, 4), (3, 5, 3), (40, 37, 4), (150, 20, 2), (64, 16, 8)] {
        let (hessian, weight, scales) = case(k, n, format(bits, None));
        let gptq = Gptq::new(&hessian, 0.01, false).unwrap();
        let result = gptq.quantize_columns(&weight, n, format(bits, None), scales.clone()).unwrap();
        let expected = plain_gptq(&hessian, &weight, n, &scales, bits, 0.01);
        assert_eq!(result.codes.to_i64_vec().unwrap(), expected, "{k} x {n}, {bits} bits");
        let nearest = round_columns(&weight, n, format(bits, None), scales).unwrap();
        assert!(k < 10 || nearest.codes != result.codes);
    }
}

#[test]
fn the_output_changes_far_less_than_by_rounding_to_nearest() {
    for (bits, group_size) in [(4, None), (3, None), (2, None), (4, Some(24)), (3, Some(24))] {
        let format = format(bits, group_size);
        let (hessian, weight, scales) = case(96, 40, format);
        let nearest = round_columns(&weight, 40, format, scales.clone()).unwrap();
        let nearest = output_error(&hessian, &weight, 40, &nearest);
        for act_order in [false, true] {
            let gptq = Gptq::new(&hessian, 0.01, act_order).unwrap();
            let result = gptq.quantize_columns(&weight, 40, format, scales.clone()).unwrap();
            let error = output_error(&hessian, &weight, 40, &result);
            assert!(error < 0.5 * nearest, "{format:?}, {act_order}: {error} {nearest}");
        }
    }
}

#[test]
fn uncorrelated_channels_are_rounded_to_nearest() {
    let (k, n, format) = (48, 10, format(4, Some(16)));
    let (_, weight, scales) = case(k, n, format);
    let rows: Vec<f32> =
        (0..k * k).map(|at| if at / k == at % k { 1.0 + (at % 7) as f32 } else { 0.0 }).collect();
    let gptq = Gptq::new(&Hessian::of_rows(&rows, k), 0.01, true).unwrap();
    let result = gptq.quantize_columns(&weight, n, format, scales.clone()).unwrap();
    let nearest = round_columns(&weight, n, format, scales).unwrap();
    assert_eq!(result.codes, nearest.codes);
    assert_eq!(result.scale, nearest.scale);
    assert!((result.squared_error / nearest.squared_error - 1.0).abs() < 1e-12);
    assert!((result.squared_norm / nearest.squared_norm - 1.0).abs() < 1e-12);
}

#[test]
fn codes_stay_in_their_range() {
    for bits in [2, 3, 4, 8] {
        let (hessian, weight, mut scales) = case(64, 33, format(bits, None));
        // So small that much is clipped.
        scales.iter_mut().for_each(|scale| *scale *= 0.4);
        let gptq = Gptq::new(&hessian, 0.01, true).unwrap();
        let result = gptq.quantize_columns(&weight, 33, format(bits, None), scales).unwrap();
        let codes = result.codes.to_i64_vec().unwrap();
        let limit = 1i64 << (bits - 1);
        assert_eq!(codes.iter().min(), Some(&-limit), "{bits} bits");
        assert_eq!(codes.iter().max(), Some(&(limit - 1)), "{bits} bits");
    }
}

#[test]
fn channels_in_order_of_activations_come_back_to_their_places() {
    for group_size in [None, Some(16)] {
        let (k, n, format) = (64, 18, format(4, group_size));
        let (hessian, weight, scales) = case(k, n, format);
        let result = Gptq::new(&hessian, 0.01, true).unwrap();
        let result = result.quantize_columns(&weight, n, format, scales.clone()).unwrap();
        // The same with everything sorted by hand, each channel as a group of its own.
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|a, b| hessian.row(*b)[*b].total_cmp(&hessian.row(*a)[*a]));
        let mut sorted = Hessian::new(k);
        for (i, channel) in order.iter().enumerate() {
            let row = order.iter().map(|other| hessian.row(*channel)[*other]);
            sorted.sums_mut()[i * k..][..k].iter_mut().zip(row).for_each(|(to, x)| *to = x);
        }
        let rows = |list: &[f32], row: &dyn Fn(usize) -> usize| -> Vec<f32> {
            order.iter().flat_map(|c| list[row(*c) * n..][..n].to_vec()).collect()
        };
        let weight = rows(&weight, &|channel| channel);
        let scales = rows(&scales, &|channel| channel / group_size.unwrap_or(k));
        let one_each = WeightFormat { group_size: Some(1), ..format };
        let expected = Gptq::new(&sorted, 0.01, false).unwrap();
        let expected = expected.quantize_columns(&weight, n, one_each, scales).unwrap();
        let expected = expected.codes.to_i64_vec().unwrap();
        let codes = result.codes.to_i64_vec().unwrap();
        for (i, channel) in order.iter().enumerate() {
            assert_eq!(codes[channel * n..][..n], expected[i * n..][..n], "channel {channel}");
        }
    }
}

#[test]
fn dead_channels_are_rounded_to_nearest_and_disturb_nobody() {
    let (k, n, format) = (24, 4, format(4, None));
    let mut random = Random::new(3);
    let mut rows = correlated(&mut random, 60, k);
    rows.chunks_mut(k).for_each(|row| row[5] = 0.0);
    let weight = normal(&mut random, k * n);
    let scales = column_scales(&weight, n, format, Clipping::Full).unwrap();
    let gptq = |rows: &[f32], k: usize, weight: &[f32]| {
        // No damping, so that the diagonal of the dead channel is zero.
        let gptq = Gptq::new(&Hessian::of_rows(rows, k), 0.0, true).unwrap();
        let result = gptq.quantize_columns(weight, n, format, scales.clone()).unwrap();
        result.codes.to_i64_vec().unwrap()
    };
    let codes = gptq(&rows, k, &weight);
    let nearest = round_columns(&weight, n, format, scales.clone()).unwrap().codes;
    assert_eq!(codes[5 * n..6 * n], nearest.to_i64_vec().unwrap()[5 * n..6 * n]);
    let without = |list: &[f32], at: usize| {
        let kept = list.chunks(at).flat_map(|row| [&row[..5], &row[6..]].concat());
        kept.collect::<Vec<f32>>()
    };
    let alive = gptq(&without(&rows, k), k - 1, &[&weight[..5 * n], &weight[6 * n..]].concat());
    assert_eq!([&codes[..5 * n], &codes[6 * n..]].concat(), alive);
}

#[test]
fn hessians_of_no_use_are_refused() {
    let rows = normal(&mut Random::new(1), 3 * 8);
    let hessian = Hessian::of_rows(&rows, 8);
    let error = Gptq::new(&hessian, 0.0, false).unwrap_err();
    assert_eq!(error, HessianError::NotPositive { damp: 0.0 });
    assert!(Gptq::new(&hessian, 0.01, false).is_ok());
    assert!(
        Gptq::new(&hessian, -0.5, false).is_err() && Gptq::new(&hessian, f64::NAN, true).is_err()
    );
    let infinite = Hessian::of_rows(&[1.0, f32::INFINITY], 2);
    assert_eq!(Gptq::new(&infinite, 0.01, false).unwrap_err(), HessianError::NotFinite);
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let gptq = Gptq::new(&Hessian::of_rows(&[1.0, 2.0, 3.0, 4.0], 2), 0.01, false).unwrap();
    let of = |weight: &[f32], scales: &[f32]| {
        gptq.quantize_columns(weight, 2, format(4, None), scales.to_vec()).map(|_| ())
    };
    assert_eq!(of(&[1.0; 4], &[1.0; 2]), Ok(()));
    assert!(matches!(of(&[1.0; 6], &[1.0; 2]), Err(WeightError::Length { expected: 3, .. })));
    assert!(matches!(of(&[1.0; 4], &[1.0; 3]), Err(WeightError::Length { expected: 2, .. })));
    assert_eq!(of(&[1.0, 1.0, f32::NAN, 1.0], &[1.0; 2]), Err(WeightError::NotFinite));
}
