//! Why a measurement is not possible.
use thiserror::Error;

use crate::ModelError;
use crate::text::TextError;

/// Why a measurement is not possible.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The text has no tokens.
    #[error("the text is empty: there is nothing to evaluate")]
    EmptyText,
    /// The text does not fill one window.
    #[error(
        "the text has {tokens} tokens, but one window needs {context}: take a longer text or a \
         smaller context"
    )]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        context: usize,
    },
    /// A window of fewer than two tokens has nothing to predict.
    #[error("the context is {0}, but a window needs at least 2 tokens")]
    Context(usize),
    /// No windows were asked for.
    #[error("the number of windows is 0, but at least 1 is needed")]
    NoWindows,
    /// Two models that should be compared have different vocabularies.
    #[error("the models cannot be compared: their vocabularies have {0} and {1} tokens")]
    Vocabularies(usize, usize),
    /// Only one sequence can be evaluated at a time.
    #[error("the model runs {0} sequences side by side, but evaluation needs 1")]
    Batch(usize),
    /// A logit is NaN or +∞.
    #[error("the model's logits at position {position} of window {window} are not finite")]
    NotFinite {
        /// Counted from 0.
        window: usize,
        /// Counted from 0.
        position: usize,
    },
    /// A count of tokens to time is 0.
    #[error("the number of tokens to {0} is 0, but at least 1 is needed")]
    NothingToTime(&'static str),
    /// The model failed or refused its input.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The text cannot be tokenised.
    #[error(transparent)]
    Text(#[from] TextError),
}
