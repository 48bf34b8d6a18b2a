//! How far a model is from a reference model.
use super::perplexity::exp_mean;
use super::score::{RowDifference, difference, map_rows};
use super::windows::check_batch;
use super::{EvalError, EvalOptions, Progress};
use crate::LanguageModel;
use crate::model::forward_all;

/// Differences of two models' next-token distributions over the windows of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Mean over positions of the KL divergence KL(reference ‖ candidate), in nats.
    pub mean_kl: f64,
    /// Greatest KL divergence of a position.
    pub max_kl: f64,
    /// Share of positions where both models' likeliest token is the same.
    pub top1_agreement: f64,
    /// Greatest absolute difference of two logits.
    pub max_abs_logit_diff: f64,
    /// Perplexity of the reference and of the candidate over the same windows.
    pub perplexity: [f64; 2],
    /// Positions that were compared.
    pub positions: usize,
    /// Windows that were compared.
    pub windows: usize,
    /// Tokens of a window.
    pub context: usize,
}

/// Sums over the positions seen so far.
#[derive(Default)]
struct Totals {
    kl: f64,
    max_kl: f64,
    same_top: usize,
    max_abs: f64,
    positions: usize,
    window_nll: [Vec<f64>; 2],
}

/// Compares `candidate` with `reference` over the windows of `ids` (see [`super::perplexity()`]).
///
/// The positions are those that predict another one within their window: 1 to `context` − 1.
///
/// # Errors
/// [`EvalError`]; the two vocabularies must have the same size.
pub fn compare(
    reference: &mut dyn LanguageModel,
    candidate: &mut dyn LanguageModel,
    ids: &[u32],
    options: EvalOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Comparison, EvalError> {
    check_batch(reference)?;
    check_batch(candidate)?;
    let (a, b) = (reference.vocab_size(), candidate.vocab_size());
    if a != b {
        return Err(EvalError::Vocabularies(a, b));
    }
    let windows = options.cut(ids)?;
    let n = windows.len();
    let mut totals = Totals::default();
    for (index, window) in windows.into_iter().enumerate() {
        compare_window(reference, candidate, index, window, &options, &mut totals)?;
        progress(Progress {
            windows_done: index + 1,
            windows: n,
            tokens_done: (index + 1) * options.context,
            tokens: n * options.context,
            perplexity: None,
        });
    }
    Ok(totals.finish(n, options.context))
}

fn compare_window(
    reference: &mut dyn LanguageModel,
    candidate: &mut dyn LanguageModel,
    window: usize,
    ids: &[u32],
    options: &EvalOptions,
    totals: &mut Totals,
) -> Result<(), EvalError> {
    reference.reset();
    candidate.reset();
    let mut nll = [0.0; 2];
    for chunk in options.chunks() {
        let a = forward_all(reference, &ids[chunk.clone()])?;
        let b = forward_all(candidate, &ids[chunk.clone()])?;
        let targets = &ids[chunk.start + 1..chunk.end + 1];
        let rows = map_rows(targets.len(), options.workers(), |row| {
            let (a, b, target) = (a.row(row)?, b.row(row)?, targets[row] as usize);
            let found = difference(a, b)?;
            let [sum_a, sum_b] = found.log_sums;
            let nll = [sum_a - f64::from(*a.get(target)?), sum_b - f64::from(*b.get(target)?)];
            Some((found, nll))
        });
        for (row, found) in rows.into_iter().enumerate() {
            let position = chunk.start + row;
            let (found, row_nll) = found.ok_or(EvalError::NotFinite { window, position })?;
            totals.add(found);
            nll.iter_mut().zip(row_nll).for_each(|(sum, nll)| *sum += nll);
        }
    }
    for (list, sum) in totals.window_nll.iter_mut().zip(nll) {
        list.push(sum / (ids.len() - 1) as f64);
    }
    Ok(())
}

impl Totals {
    fn add(&mut self, row: RowDifference) {
        self.kl += row.kl;
        self.max_kl = self.max_kl.max(row.kl);
        self.same_top += usize::from(row.same_top);
        self.max_abs = self.max_abs.max(row.max_abs);
        self.positions += 1;
    }

    fn finish(self, windows: usize, context: usize) -> Comparison {
        let positions = self.positions as f64;
        Comparison {
            mean_kl: self.kl / positions,
            max_kl: self.max_kl,
            top1_agreement: self.same_top as f64 / positions,
            max_abs_logit_diff: self.max_abs,
            perplexity: self.window_nll.map(|nll| exp_mean(&nll)),
            positions: self.positions,
            windows,
            context,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::perplexity;
    use super::*;
    use crate::generate::fake::Bigram;

    const OPTIONS: EvalOptions = EvalOptions { context: 4, windows: None, chunk: 2, threads: 2 };

    /// p = (3/4, 1/4) after 0; the same or the reverse after 1.
    fn model(reversed: bool) -> Bigram {
        Bigram::new(2, move |last, next| {
            let likely = u32::from(reversed && last == 1);
            if next == likely { 3f32.ln() } else { 0.0 }
        })
    }

    #[test]
    fn figures_are_those_of_the_definitions() {
        let ids = [0, 1, 0, 1, 1, 1, 0, 0, 1];
        let found =
            compare(&mut model(false), &mut model(true), &ids, OPTIONS, &mut |_| ()).unwrap();
        // Positions that predict: 0 1 0 | 1 1 0; they differ after 1.
        let kl = 0.75 * 3f64.ln() - 0.25 * 3f64.ln();
        assert!((found.mean_kl - kl / 2.0).abs() < 1e-6);
        assert!((found.max_kl - kl).abs() < 1e-6);
        assert_eq!((found.top1_agreement, found.positions, found.windows), (0.5, 6, 2));
        assert!((found.max_abs_logit_diff - 3f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_perplexities_are_those_of_the_protocol() {
        let ids = [0, 1, 0, 1, 1, 1, 0, 0, 1];
        let found =
            compare(&mut model(false), &mut model(true), &ids, OPTIONS, &mut |_| ()).unwrap();
        for (reversed, compared) in [false, true].into_iter().zip(found.perplexity) {
            let alone = perplexity(&mut model(reversed), &ids, OPTIONS, &mut |_| ()).unwrap();
            assert!((alone.perplexity - compared).abs() < 1e-9);
        }
    }

    #[test]
    fn a_model_agrees_with_itself() {
        let mut told = 0;
        let found = compare(&mut model(true), &mut model(true), &[0, 1, 1, 0], OPTIONS, &mut |p| {
            told = p.windows_done;
        });
        let found = found.unwrap();
        assert_eq!((found.mean_kl, found.top1_agreement, told), (0.0, 1.0, 1));
    }

    #[test]
    fn different_vocabularies_are_refused() {
        let mut other = Bigram::new(3, |_, _| 0.0);
        let error = compare(&mut model(true), &mut other, &[0; 4], OPTIONS, &mut |_| ());
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("their vocabularies have 2 and 3 tokens"), "{error}");
    }
}
