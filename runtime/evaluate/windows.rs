//! Cutting tokens into windows, and feeding a window in chunks.
use std::ops::Range;

use super::EvalError;
use crate::LanguageModel;

/// Which part of a text to evaluate, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalOptions {
    /// Tokens of a window.
    pub context: usize,
    /// Most windows to take, from the beginning of the text; nothing means all.
    pub windows: Option<usize>,
    /// Most tokens to feed at once: logits take `chunk * vocab * 4` bytes. Of no account where none
    /// come to the host ([`LanguageModel::scores_without_logits`]).
    pub chunk: usize,
    /// Threads that work on logits; 0 means one a core.
    pub threads: usize,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { context: 2048, windows: None, chunk: 256, threads: 0 }
    }
}

/// How far an evaluation has come; told after every chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Windows that are complete.
    pub windows_done: usize,
    /// Windows in all.
    pub windows: usize,
    /// Tokens that were fed.
    pub tokens_done: usize,
    /// Tokens in all.
    pub tokens: usize,
    /// Perplexity over the complete windows; nothing before the first is.
    pub perplexity: Option<f64>,
}

impl EvalOptions {
    /// Number of windows that a text of `tokens` tokens gives.
    ///
    /// # Errors
    /// [`EvalError`] when there is not one window, or when the options make no sense.
    pub fn count_windows(&self, tokens: usize) -> Result<usize, EvalError> {
        if self.context < 2 {
            return Err(EvalError::Context(self.context));
        }
        if self.windows == Some(0) {
            return Err(EvalError::NoWindows);
        }
        if tokens == 0 {
            return Err(EvalError::EmptyText);
        }
        if tokens < self.context {
            return Err(EvalError::TooShort { tokens, context: self.context });
        }
        Ok((tokens / self.context).min(self.windows.unwrap_or(usize::MAX)))
    }

    /// Cuts `ids` into consecutive windows of exactly `context` tokens; the tail is dropped.
    pub(super) fn cut<'a>(&self, ids: &'a [u32]) -> Result<Vec<&'a [u32]>, EvalError> {
        let windows = self.count_windows(ids.len())?;
        Ok(ids.chunks_exact(self.context).take(windows).collect())
    }

    /// The positions of a window that predict another one, in chunks. The last position predicts
    /// nothing within the window, so it is not fed.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (fed, chunk) = (self.context.saturating_sub(1), self.chunk.max(1));
        (0..fed).step_by(chunk).map(move |start| start..(start + chunk).min(fed))
    }

    /// Number of threads to use.
    pub(super) fn workers(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { available() } else { self.threads }
    }
}

/// Checks that a model takes one sequence at a time.
pub(super) fn check_batch(model: &dyn LanguageModel) -> Result<(), EvalError> {
    if model.batch() == 1 { Ok(()) } else { Err(EvalError::Batch(model.batch())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(context: usize, windows: Option<usize>, chunk: usize) -> EvalOptions {
        EvalOptions { context, windows, chunk, threads: 1 }
    }

    #[test]
    fn the_tail_is_dropped() {
        let ids: Vec<u32> = (0..11).collect();
        let windows = options(4, None, 8);
        assert_eq!(windows.cut(&ids).unwrap(), [&[0, 1, 2, 3][..], &[4, 5, 6, 7]]);
        assert_eq!(options(4, Some(1), 8).cut(&ids).unwrap().len(), 1);
        assert_eq!(options(4, Some(9), 8).cut(&ids).unwrap().len(), 2);
    }

    #[test]
    fn chunks_cover_all_positions_but_the_last() {
        let chunks: Vec<_> = options(8, None, 3).chunks().collect();
        assert_eq!(chunks, [0..3, 3..6, 6..7]);
        assert!(options(2, None, 0).chunks().eq(std::iter::once(0..1)));
    }

    #[test]
    fn senseless_options_and_short_texts_are_errors() {
        let message = |options: EvalOptions, ids: &[u32]| options.cut(ids).unwrap_err().to_string();
        assert!(message(options(1, None, 8), &[0; 9]).contains("the context is 1"));
        assert!(message(options(4, Some(0), 8), &[0; 9]).contains("at least 1"));
        assert!(message(options(4, None, 8), &[]).contains("the text is empty"));
        let short = message(options(4, None, 8), &[0; 3]);
        assert!(short.starts_with("the text has 3 tokens, but one window needs 4"), "{short}");
    }
}
