//! What several subcommands do first.
use std::path::Path;

use anyhow::Context;
use planish::app::{OpenOptions, check_readable, open_model};
use planish_runtime::LanguageModel;
use planish_runtime::evaluate::{EvalError, EvalOptions, tokenize};
use planish_runtime::text::{TextTokenizer, text_folder};

/// Loads the tokenizer that belongs to a model.
pub(super) fn load_tokenizer(model: &Path) -> anyhow::Result<TextTokenizer> {
    check_readable(model)?;
    Ok(TextTokenizer::load(&text_folder(model)?)?)
}

/// Opens a model and checks that the tokenizer belongs to it.
pub(super) fn open_checked(
    path: &Path,
    options: &OpenOptions,
    tokenizer: &TextTokenizer,
) -> anyhow::Result<Box<dyn LanguageModel>> {
    let model = open_model(path, options)?;
    tokenizer.check_vocab(model.vocab_size())?;
    Ok(model)
}

/// The tokens of a text file by the perplexity protocol.
pub(super) fn tokenize_file(path: &Path, tokenizer: &TextTokenizer) -> anyhow::Result<Vec<u32>> {
    let read = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(read)?;
    tokenize(tokenizer, &text).with_context(|| format!("cannot use {}", path.display()))
}

/// Checks that the tokens of the text in `path` fill a window.
pub(super) fn check_length(path: &Path, ids: &[u32], options: EvalOptions) -> anyhow::Result<()> {
    match options.count_windows(ids.len()) {
        Err(error @ (EvalError::EmptyText | EvalError::TooShort { .. })) => {
            Err(error).with_context(|| format!("cannot use {}", path.display()))
        }
        result => Ok(result.map(|_| ())?),
    }
}
