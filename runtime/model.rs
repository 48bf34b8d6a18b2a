//! The one interface through which generation and evaluation see a language model.
use std::error::Error as StdError;

use thiserror::Error;

use crate::evaluate::score_on_host;

/// Which positions of a forward pass to return logits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// The last position of each sequence only.
    Last,
    /// All positions that were fed.
    All,
}

/// Logits of a forward pass: row-major `[rows, vocab]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogitsOut {
    /// `batch` rows for [`Logits::Last`], `batch * n` for [`Logits::All`].
    pub rows: usize,
    /// Row length: the size of the vocabulary.
    pub vocab: usize,
    /// `rows * vocab` values.
    pub data: Vec<f32>,
}

impl LogitsOut {
    /// The logits of row `index`, or nothing when there is no such row.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let start = index.checked_mul(self.vocab)?;
        self.data.get(start..start.checked_add(self.vocab)?)
    }

    /// The logits of the last row.
    pub fn last_row(&self) -> Option<&[f32]> {
        self.row(self.rows.checked_sub(1)?)
    }
}

/// Memory that a loaded model holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Weights and other constants, in the form the engine keeps them.
    pub weights: u64,
    /// The KV cache as allocated.
    pub cache: u64,
}

/// Why a model could not take tokens.
#[derive(Debug, Error)]
pub enum ModelError {
    /// `forward` was called without tokens.
    #[error("the model was given no tokens")]
    NoTokens,
    /// The number of tokens is no multiple of the batch size.
    #[error("{n} tokens cannot be shared out among {batch} sequences")]
    UnevenBatch {
        /// Tokens given.
        n: usize,
        /// Sequences in the batch.
        batch: usize,
    },
    /// A token is outside the vocabulary.
    #[error("token {id} is outside the model's vocabulary of {vocab} tokens")]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// The cache or the model's position encoding takes no more tokens.
    #[error("the model takes {capacity} tokens, but {needed} are needed")]
    ContextFull {
        /// Tokens in the cache plus tokens given.
        needed: usize,
        /// The most that fit.
        capacity: usize,
    },
    /// The number of tokens to score is not that of the tokens that are fed.
    #[error("{targets} tokens cannot be scored by the logits of {n}")]
    Targets {
        /// Tokens fed.
        n: usize,
        /// Tokens to score.
        targets: usize,
    },
    /// The model returned another number of logits than was asked for.
    #[error("the model returned logits [{rows}, {vocab}] where [{wanted}, {vocab_size}] were due")]
    LogitsShape {
        /// Rows returned.
        rows: usize,
        /// Row length returned.
        vocab: usize,
        /// Rows due.
        wanted: usize,
        /// The model's vocabulary.
        vocab_size: usize,
    },
    /// A token can't be chosen: every logit is -∞, or one is NaN or +∞, or there is none.
    #[error("the model's logits are not finite")]
    NotFinite,
    /// The engine failed.
    #[error("the engine failed")]
    Engine(#[source] Box<dyn StdError + Send + Sync>),
}

impl ModelError {
    /// Wraps an error of an engine.
    pub fn engine(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Engine(error.into())
    }
}

/// A loaded causal language model with a KV cache for one batch of equally long sequences.
pub trait LanguageModel {
    /// Size of the vocabulary: the length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Number of sequences that run side by side; 1 unless the model was opened with another.
    fn batch(&self) -> usize {
        1
    }

    /// Number of tokens of each sequence in the cache.
    fn n_past(&self) -> usize;

    /// Empties the cache.
    fn reset(&mut self);

    /// Feeds tokens after those in the cache, and keeps their keys and values there.
    ///
    /// `ids` is row-major `[batch, n]`. The logits are row-major `[batch, vocab]` for
    /// [`Logits::Last`] and `[batch * n, vocab]` for [`Logits::All`].
    ///
    /// # Errors
    /// [`ModelError`]; the cache is then as it was before.
    fn forward(&mut self, ids: &[u32], want: Logits) -> Result<LogitsOut, ModelError>;

    /// Feeds tokens as [`LanguageModel::forward`] does, and returns the likeliest next token of each
    /// sequence, the first of equals.
    ///
    /// # Errors
    /// [`ModelError`]; the cache is then as it was before, except after [`ModelError::NotFinite`].
    fn forward_greedy(&mut self, ids: &[u32]) -> Result<Vec<u32>, ModelError> {
        greedy(&self.forward(ids, Logits::Last)?)
    }

    /// Feeds tokens as [`LanguageModel::forward`] does, and returns how unlikely the model finds those
    /// of `targets`, each as the one after the token at its place in `ids`: the negative
    /// log-likelihood in nats. Nothing where a logit is NaN or +∞ or all are −∞, and for a token
    /// outside the vocabulary. Up to `workers` threads work on logits that come to the host.
    ///
    /// # Errors
    /// [`ModelError`]; the cache is then as it was before.
    fn score(
        &mut self,
        ids: &[u32],
        targets: &[u32],
        workers: usize,
    ) -> Result<Vec<Option<f64>>, ModelError> {
        score_on_host(self, ids, targets, workers)
    }

    /// Whether [`LanguageModel::score`] holds no logits in host memory, so that it may be given many
    /// tokens at once.
    fn scores_without_logits(&self) -> bool {
        false
    }

    /// Memory held at present.
    fn memory(&self) -> MemoryUse;
}

/// Feeds `ids` and checks the shape of the logits that come back: `[ids.len(), vocab_size]`.
///
/// # Errors
/// [`ModelError`].
pub(crate) fn forward_all<M: LanguageModel + ?Sized>(
    model: &mut M,
    ids: &[u32],
) -> Result<LogitsOut, ModelError> {
    let out = model.forward(ids, Logits::All)?;
    let (wanted, vocab_size) = (ids.len(), model.vocab_size());
    let fits = out.rows == wanted && out.vocab == vocab_size;
    if fits && out.data.len() == wanted * vocab_size {
        return Ok(out);
    }
    Err(ModelError::LogitsShape { rows: out.rows, vocab: out.vocab, wanted, vocab_size })
}

/// Checks that there is one target for each token.
pub(crate) fn check_targets(ids: &[u32], targets: &[u32]) -> Result<(), ModelError> {
    match (ids.len(), targets.len()) {
        (n, targets) if n == targets => Ok(()),
        (n, targets) => Err(ModelError::Targets { n, targets }),
    }
}

/// The likeliest token of each row.
///
/// # Errors
/// [`ModelError::NotFinite`].
pub fn greedy(logits: &LogitsOut) -> Result<Vec<u32>, ModelError> {
    let rows = (0..logits.rows).map(|row| argmax(logits.row(row).unwrap_or_default()));
    rows.map(|best| best.map(|token| token as u32).ok_or(ModelError::NotFinite)).collect()
}

/// Index of the greatest logit, the first of equals; nothing where it is not finite or one is NaN.
pub fn argmax(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if *logit > logits[best] {
            best = index;
        }
    }
    logits.get(best).is_some_and(|logit| logit.is_finite()).then_some(best)
}

/// Checks what every model asks of the tokens it is fed: some tokens, evenly shared out among
/// `batch` sequences, all below `vocab`.
pub fn check_ids(ids: &[u32], batch: usize, vocab: usize) -> Result<(), ModelError> {
    if ids.is_empty() {
        return Err(ModelError::NoTokens);
    }
    if batch == 0 || !ids.len().is_multiple_of(batch) {
        return Err(ModelError::UnevenBatch { n: ids.len(), batch });
    }
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(&id) => Err(ModelError::TokenOutOfRange { id, vocab }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_and_bounds_are_kept() {
        let out = LogitsOut { rows: 2, vocab: 3, data: vec![0., 1., 2., 3., 4., 5.] };
        assert_eq!(out.row(1), Some(&[3., 4., 5.][..]));
        assert_eq!(out.last_row(), out.row(1));
        assert_eq!(out.row(2), None);
        assert_eq!(LogitsOut::default().last_row(), None);
    }

    #[test]
    fn bad_ids_are_named() {
        assert!(check_ids(&[0, 1], 2, 2).is_ok());
        assert!(matches!(check_ids(&[], 1, 2), Err(ModelError::NoTokens)));
        assert!(matches!(check_ids(&[0], 2, 2), Err(ModelError::UnevenBatch { .. })));
        let error = check_ids(&[0, 7], 1, 2).unwrap_err();
        assert_eq!(error.to_string(), "token 7 is outside the model's vocabulary of 2 tokens");
    }
}
