//! Text to tokens and back: tokenizer folders, chat templates, streaming detokenisation.
mod chat;
mod config;
mod error;
mod pyjson;
mod stream;
mod strftime;
pub(crate) mod tokenizer;

pub use chat::{ChatTemplate, Message};
pub use config::{TokenizerConfig, text_folder};
pub use error::TextError;
pub use stream::TextStream;
pub use tokenizer::TextTokenizer;
