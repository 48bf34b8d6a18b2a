//! Perplexity by the protocol of the field.
use super::windows::check_batch;
use super::{EvalError, EvalOptions, Progress};
use crate::LanguageModel;

/// The perplexity of a text, and what it was measured over.
#[derive(Debug, Clone, PartialEq)]
pub struct Perplexity {
    /// exp of the mean over windows of the mean negative log-likelihood within a window.
    pub perplexity: f64,
    /// Mean negative log-likelihood of each window, in nats.
    pub window_nll: Vec<f64>,
    /// Tokens of the whole text.
    pub n_tokens: usize,
    /// Tokens of a window.
    pub context: usize,
}

/// exp of the mean of the windows' figures.
pub(super) fn exp_mean(window_nll: &[f64]) -> f64 {
    (window_nll.iter().sum::<f64>() / window_nll.len() as f64).exp()
}

/// Measures the perplexity of `ids`, the tokens of a whole text (see [`super::tokenize`]).
///
/// Consecutive windows of `context` tokens, tail dropped; in each, the mean negative log-likelihood
/// of the tokens at positions 2 to `context` given those before them in the window; exp of the mean
/// over windows. The model's cache is emptied before every window.
///
/// # Errors
/// [`EvalError`].
pub fn perplexity(
    model: &mut dyn LanguageModel,
    ids: &[u32],
    options: EvalOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Perplexity, EvalError> {
    check_batch(model)?;
    let options = with_chunk_for(model, options);
    let windows = options.cut(ids)?;
    let (n, context) = (windows.len(), options.context);
    let mut window_nll = Vec::with_capacity(n);
    for (index, window) in windows.into_iter().enumerate() {
        let current = (!window_nll.is_empty()).then(|| exp_mean(&window_nll));
        let mut report = |fed: usize| {
            let tokens_done = index * context + fed;
            let tokens = n * context;
            progress(Progress {
                windows_done: index,
                windows: n,
                tokens_done,
                tokens,
                perplexity: current,
            });
        };
        window_nll.push(window_mean(model, index, window, &options, &mut report)?);
    }
    let perplexity = exp_mean(&window_nll);
    progress(Progress {
        windows_done: n,
        windows: n,
        tokens_done: n * context,
        tokens: n * context,
        perplexity: Some(perplexity),
    });
    Ok(Perplexity { perplexity, window_nll, n_tokens: ids.len(), context })
}

/// The options with whole windows as chunks, where no logits come to the host.
fn with_chunk_for(model: &dyn LanguageModel, options: EvalOptions) -> EvalOptions {
    match model.scores_without_logits() {
        true => EvalOptions { chunk: options.context, ..options },
        false => options,
    }
}

/// Mean negative log-likelihood of one window.
fn window_mean(
    model: &mut dyn LanguageModel,
    window: usize,
    ids: &[u32],
    options: &EvalOptions,
    report: &mut dyn FnMut(usize),
) -> Result<f64, EvalError> {
    model.reset();
    let mut sum = 0.0;
    for chunk in options.chunks() {
        let targets = &ids[chunk.start + 1..chunk.end + 1];
        let scores = model.score(&ids[chunk.clone()], targets, options.workers())?;
        for (row, score) in scores.into_iter().enumerate() {
            let position = chunk.start + row;
            sum += score.ok_or(EvalError::NotFinite { window, position })?;
        }
        report(chunk.end);
    }
    Ok(sum / (ids.len() - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::fake::Bigram;
    use crate::{Logits, LogitsOut, MemoryUse, ModelError};

    fn options(context: usize, chunk: usize) -> EvalOptions {
        EvalOptions { context, windows: None, chunk, threads: 2 }
    }

    /// p(next | last) = 1/2 for next = last + 1 (mod 4), 1/6 for the others.
    fn model() -> Bigram {
        Bigram::new(4, |last, next| if next == (last + 1) % 4 { 3f32.ln() } else { 0.0 })
    }

    #[test]
    fn it_is_exp_of_the_mean_over_windows_of_the_mean_within() {
        let ids = [0, 1, 2, 2, /* window */ 0, 0, 0, 0, /* tail */ 3];
        let (hit, miss) = (2f64.ln(), 6f64.ln());
        let expected = [(2.0 * hit + miss) / 3.0, miss];
        for chunk in [1, 2, 3, 256] {
            let found = perplexity(&mut model(), &ids, options(4, chunk), &mut |_| ()).unwrap();
            for (found, expected) in found.window_nll.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "chunk {chunk}");
            }
            let whole = ((expected[0] + expected[1]) / 2.0).exp();
            assert!((found.perplexity - whole).abs() < 1e-5);
            assert_eq!((found.n_tokens, found.window_nll.len(), found.context), (9, 2, 4));
        }
    }

    #[test]
    fn a_uniform_model_has_the_size_of_its_vocabulary() {
        let mut model = Bigram::new(50, |_, _| -3.0);
        let ids: Vec<u32> = (0..50).collect();
        let found = perplexity(&mut model, &ids, options(10, 256), &mut |_| ()).unwrap();
        assert!((found.perplexity - 50.0).abs() < 1e-4);
    }

    #[test]
    fn every_window_begins_with_an_empty_cache_and_chunks_are_kept() {
        let mut model = model();
        perplexity(&mut model, &[0; 8], options(4, 2), &mut |_| ()).unwrap();
        assert_eq!(model.calls, [2, 1, 2, 1]);
        assert_eq!(model.n_past(), 3);
    }

    /// A model that needs no logits on the host to score.
    struct Scoring(Bigram);

    impl LanguageModel for Scoring {
        fn vocab_size(&self) -> usize {
            self.0.vocab_size()
        }

        fn n_past(&self) -> usize {
            self.0.n_past()
        }

        fn reset(&mut self) {
            self.0.reset();
        }

        fn forward(&mut self, ids: &[u32], want: Logits) -> Result<LogitsOut, ModelError> {
            self.0.forward(ids, want)
        }

        fn scores_without_logits(&self) -> bool {
            true
        }

        fn memory(&self) -> MemoryUse {
            self.0.memory()
        }
    }

    #[test]
    fn windows_are_fed_whole_where_no_logits_come_to_the_host() {
        let (mut scoring, ids) = (Scoring(model()), [0, 1, 2, 2, 0, 0, 0, 0]);
        let found = perplexity(&mut scoring, &ids, options(4, 2), &mut |_| ()).unwrap();
        assert_eq!(scoring.0.calls, [3, 3]);
        let plain = perplexity(&mut model(), &ids, options(4, 2), &mut |_| ()).unwrap();
        assert_eq!(found, plain);
    }

    #[test]
    fn progress_is_told() {
        let mut told = Vec::new();
        perplexity(&mut model(), &[0; 8], options(4, 2), &mut |p| told.push(p)).unwrap();
        let steps: Vec<_> = told.iter().map(|p| (p.windows_done, p.tokens_done)).collect();
        assert_eq!(steps, [(0, 2), (0, 3), (1, 6), (1, 7), (2, 8)]);
        assert_eq!(told[0].perplexity, None);
        assert!((told[2].perplexity.unwrap() - 6.0).abs() < 1e-4);
    }

    #[test]
    fn errors_say_where() {
        let mut nan = Bigram::new(4, |last, _| if last == 3 { f32::NAN } else { 0.0 });
        let ids = [0, 0, 0, 0, 0, 3, 0, 0];
        let error = perplexity(&mut nan, &ids, options(4, 2), &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, "the model's logits at position 1 of window 1 are not finite");
        let error = perplexity(&mut model(), &[9; 4], options(4, 2), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("token 9 is outside"), "{error}");
        let error = perplexity(&mut model(), &[0, 0, 0, 9], options(4, 2), &mut |_| ());
        assert!(error.is_err(), "a target outside the vocabulary is an error too");
    }
}
