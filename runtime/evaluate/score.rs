//! Figures of single rows of logits, and running over many rows at once.

use crate::model::{check_targets, forward_all};
use crate::{LanguageModel, ModelError};

/// [`LanguageModel::score`] by logits in host memory.
///
/// # Errors
/// [`ModelError`].
pub(crate) fn score_on_host<M: LanguageModel + ?Sized>(
    model: &mut M,
    ids: &[u32],
    targets: &[u32],
    workers: usize,
) -> Result<Vec<Option<f64>>, ModelError> {
    check_targets(ids, targets)?;
    let logits = forward_all(model, ids)?;
    Ok(map_rows(targets.len(), workers, |row| {
        negative_log_likelihood(logits.row(row)?, targets[row])
    }))
}

/// `ln Σ exp(logits)`, summed in f64. Nothing when a logit is NaN or +∞, or when all are -∞.
pub(super) fn log_sum_exp(logits: &[f32]) -> Option<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        return None;
    }
    // Eight sums side by side, for the processor's sake. A NaN makes the sum NaN.
    let mut sums = [0.0f64; 8];
    let (chunks, rest) = logits.as_chunks::<8>();
    for chunk in chunks {
        for (sum, logit) in sums.iter_mut().zip(chunk) {
            *sum += f64::from((logit - max).exp());
        }
    }
    let rest: f64 = rest.iter().map(|logit| f64::from((logit - max).exp())).sum();
    let sum = sums.iter().sum::<f64>() + rest;
    (!sum.is_nan()).then(|| f64::from(max) + sum.ln())
}

/// Negative log-likelihood of `target`, in nats; nothing as for [`log_sum_exp`], or when there is
/// no such logit.
fn negative_log_likelihood(logits: &[f32], target: u32) -> Option<f64> {
    Some(log_sum_exp(logits)? - f64::from(*logits.get(target as usize)?))
}

/// How two rows of logits differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowDifference {
    /// KL divergence of softmax(`a`) from softmax(`b`), in nats: Σ pₐ (ln pₐ − ln p_b).
    pub kl: f64,
    /// Whether both have the same greatest logit.
    pub same_top: bool,
    /// Greatest absolute difference of two logits.
    pub max_abs: f64,
    /// ln Σ exp of both rows.
    pub log_sums: [f64; 2],
}

/// Compares the rows `a` (the reference) and `b`, of equal length; nothing as for [`log_sum_exp`].
pub(super) fn difference(a: &[f32], b: &[f32]) -> Option<RowDifference> {
    let (sum_a, sum_b) = (log_sum_exp(a)?, log_sum_exp(b)?);
    let (mut mean_gap, mut max_abs) = (0.0, 0.0f64);
    for (&x, &y) in a.iter().zip(b) {
        // Equal logits differ by 0 even where both are -∞.
        let gap = if x == y { 0.0 } else { f64::from(x) - f64::from(y) };
        let p = f64::from(((f64::from(x) - sum_a) as f32).exp());
        mean_gap += if p > 0.0 { p * gap } else { 0.0 };
        max_abs = max_abs.max(gap.abs());
    }
    // Rounding may take the divergence a hair below zero.
    let kl = (mean_gap + sum_b - sum_a).max(0.0);
    let same_top = argmax(a) == argmax(b);
    Some(RowDifference { kl, same_top, max_abs, log_sums: [sum_a, sum_b] })
}

/// Index of the greatest value, the first of equals.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// Maps `0..rows` on up to `workers` threads; the results are in order.
pub(super) fn map_rows<T: Send>(
    rows: usize,
    workers: usize,
    map: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let share = rows.div_ceil(workers.max(1)).max(1);
    let map = &map;
    std::thread::scope(|scope| {
        let starts = (0..rows).step_by(share);
        let run = |start: usize| {
            let end = (start + share).min(rows);
            scope.spawn(move || (start..end).map(map).collect::<Vec<T>>())
        };
        let threads: Vec<_> = starts.map(run).collect();
        threads.into_iter().flat_map(join).collect()
    })
}

/// Waits for a thread; a panic in it goes on in the caller.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ln of a distribution, shifted: softmax gives the distribution back.
    fn logits(p: &[f64]) -> Vec<f32> {
        p.iter().map(|p| (p.ln() + 3.0) as f32).collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} and {b}");
    }

    #[test]
    fn the_likelihood_is_that_of_softmax() {
        let row = logits(&[0.5, 0.3, 0.2]);
        close(negative_log_likelihood(&row, 2).unwrap(), -0.2f64.ln());
        let long: Vec<f32> = vec![-700.0; 49152];
        close(negative_log_likelihood(&long, 7).unwrap(), 49152f64.ln());
        assert_eq!(negative_log_likelihood(&row, 3), None);
    }

    #[test]
    fn great_logits_do_not_overflow_and_masked_ones_do_not_count() {
        close(log_sum_exp(&[1e30, 0.0]).unwrap(), f64::from(1e30f32));
        close(log_sum_exp(&[f32::NEG_INFINITY, 0.0]).unwrap(), 0.0);
    }

    #[test]
    fn logits_that_are_not_finite_are_noticed() {
        for bad in [f32::NAN, f32::INFINITY] {
            for index in [0, 4, 8] {
                let mut row = [0.0; 9];
                row[index] = bad;
                assert_eq!(log_sum_exp(&row), None);
                assert_eq!(difference(&row, &[0.0; 9]), None);
                assert_eq!(difference(&[0.0; 9], &row), None);
            }
        }
        assert_eq!(log_sum_exp(&[]), None);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY]), None);
    }

    #[test]
    fn the_divergence_is_that_of_the_definition() {
        let (p, q) = ([0.5, 0.3, 0.2], [0.1, 0.6, 0.3]);
        let expected: f64 = p.iter().zip(q).map(|(p, q): (&f64, f64)| p * (p / q).ln()).sum();
        let found = difference(&logits(&p), &logits(&q)).unwrap();
        close(found.kl, expected);
        assert!(!found.same_top);
        close(found.max_abs, 5f64.ln());
    }

    #[test]
    fn equal_rows_do_not_differ_and_shifted_ones_only_in_their_logits() {
        let row = logits(&[0.5, 0.3, 0.2]);
        let same = difference(&row, &row).unwrap();
        assert_eq!((same.kl, same.same_top, same.max_abs), (0.0, true, 0.0));
        let shifted: Vec<f32> = row.iter().map(|x| x + 1.0).collect();
        let found = difference(&row, &shifted).unwrap();
        close(found.kl, 0.0);
        close(found.max_abs, 1.0);
    }

    #[test]
    fn rows_come_back_in_order_from_any_number_of_threads() {
        for rows in [0, 1, 7, 8] {
            for workers in [0, 1, 3, 20] {
                let squares: Vec<usize> = (0..rows).map(|row| row * row).collect();
                assert_eq!(map_rows(rows, workers, |row| row * row), squares);
            }
        }
    }
}
