//! The errors of tokenizers and chat templates.
use std::path::PathBuf;

use thiserror::Error;

/// Why text could not be turned into tokens, or tokens into text.
#[derive(Debug, Error)]
pub enum TextError {
    /// Neither the model's folder nor the one above it has a tokenizer.
    #[error("there is no tokenizer.json in {folder}, nor in the folder above it")]
    NoTokenizer {
        /// The model's folder.
        folder: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A configuration file is no JSON.
    #[error("{path} is not valid JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// `tokenizer.json` is not one that the `tokenizers` library reads.
    #[error("{path} is no usable tokenizer: {problem}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the library said.
        problem: String,
    },
    /// The library failed to encode or decode.
    #[error("the tokenizer cannot {action}: {problem}")]
    Coding {
        /// "encode the text" or "decode the tokens".
        action: &'static str,
        /// What the library said.
        problem: String,
    },
    /// The tokenizer makes tokens that the model does not have.
    #[error(
        "{path} has token ids up to {max_id}, but the model's vocabulary has {vocab} tokens: \
         they do not belong together"
    )]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// The greatest id in the base vocabulary.
        max_id: u32,
        /// The model's vocabulary.
        vocab: usize,
    },
    /// There is no chat template.
    #[error(
        "{folder} has no chat template, neither chat_template.jinja nor a field chat_template in \
         tokenizer_config.json"
    )]
    NoChatTemplate {
        /// The folder of the tokenizer.
        folder: PathBuf,
    },
    /// The chat template does not compile, or fails on these messages.
    #[error("the chat template of {folder} fails: {problem}")]
    ChatTemplate {
        /// The folder of the tokenizer.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
}
