//! A tokenizer with what its folder says about it.
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::{ChatTemplate, TextError, TextStream, TokenizerConfig};

/// A `tokenizer.json` with its special tokens and its chat template.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    folder: PathBuf,
    config: TokenizerConfig,
    eos_ids: Vec<u32>,
}

impl TextTokenizer {
    /// Loads `tokenizer.json` and the configuration files beside it.
    ///
    /// Truncation and padding, which a `tokenizer.json` may ask for, are switched off.
    ///
    /// # Errors
    /// [`TextError`], naming the file.
    pub fn load(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer.json");
        let json = std::fs::read(&path)
            .map_err(|source| TextError::Read { path: path.clone(), source })?;
        let unusable = |e: tokenizers::Error| TextError::Tokenizer {
            path: path.clone(),
            problem: e.to_string(),
        };
        let mut inner = Tokenizer::from_bytes(json).map_err(unusable)?;
        inner.with_truncation(None).map_err(unusable)?;
        inner.with_padding(None);
        let config = TokenizerConfig::load(folder)?;
        let eos_ids = eos_ids(&inner, &config);
        Ok(Self { inner, folder: folder.into(), config, eos_ids })
    }

    /// Checks that every token of the base vocabulary is one of the model's `vocab` tokens.
    ///
    /// The model may have more (vocabularies are padded); tokens added later are left to
    /// [`ModelError::TokenOutOfRange`](crate::ModelError::TokenOutOfRange), as published
    /// tokenizers do have added tokens that their model lacks.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`].
    pub fn check_vocab(&self, vocab: usize) -> Result<(), TextError> {
        let max_id = self.inner.get_vocab(false).into_values().max().unwrap_or(0);
        if (max_id as usize) < vocab {
            return Ok(());
        }
        Err(TextError::Vocabulary { path: self.folder.join("tokenizer.json"), max_id, vocab })
    }

    /// Number of tokens, added ones included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether the tokenizer has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of the tokens that end a text. May be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// What the configuration files say.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Tokenises `text`; with `special`, adds the tokens that the model expects around a text.
    ///
    /// # Errors
    /// [`TextError::Coding`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|e| TextError::Coding { action: "encode the text", problem: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Coding`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner
            .decode(ids, true)
            .map_err(|e| TextError::Coding { action: "decode the tokens", problem: e.to_string() })
    }

    /// A detokeniser that takes one token after the other.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// The chat template of the folder.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`], or [`TextError::ChatTemplate`] when it does not compile.
    pub fn chat_template(&self) -> Result<ChatTemplate, TextError> {
        let no_template = || TextError::NoChatTemplate { folder: self.folder.clone() };
        let source = self.config.chat_template.as_deref().ok_or_else(no_template)?;
        ChatTemplate::new(source, &self.config.special_tokens, &self.folder)
    }
}

/// The configured ids, or else the id of the token that `tokenizer_config.json` calls `eos_token`.
fn eos_ids(tokenizer: &Tokenizer, config: &TokenizerConfig) -> Vec<u32> {
    if !config.eos_ids.is_empty() {
        return config.eos_ids.clone();
    }
    let token = config.special_tokens.get("eos_token");
    token.and_then(|token| tokenizer.token_to_id(token)).into_iter().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// SmolLM2's tokenizer folder.
    pub(crate) fn smollm2_folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/smollm2")
    }

    /// SmolLM2's tokenizer.
    pub(crate) fn smollm2() -> TextTokenizer {
        TextTokenizer::load(&smollm2_folder()).unwrap()
    }

    #[test]
    fn text_survives_encoding() {
        let tokenizer = smollm2();
        let text = "The capital of France is Paris – naïve 日本語 🙂";
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(tokenizer.encode("The capital of France is", true).unwrap().len(), 5);
    }

    #[test]
    fn smollm2_ends_with_im_end() {
        let tokenizer = smollm2();
        assert_eq!(tokenizer.eos_ids(), [2]);
        assert_eq!(tokenizer.decode(&[2]).unwrap(), "");
        assert_eq!(tokenizer.len(), 49152);
        assert!(!tokenizer.is_empty());
    }

    #[test]
    fn the_eos_token_of_the_tokenizer_is_the_last_resort() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(smollm2_folder().join(name), folder.path().join(name)).unwrap();
        }
        assert_eq!(TextTokenizer::load(folder.path()).unwrap().eos_ids(), [2]);
    }

    #[test]
    fn a_model_with_fewer_tokens_is_refused() {
        let tokenizer = smollm2();
        assert!(tokenizer.check_vocab(49152).is_ok());
        assert!(tokenizer.check_vocab(50000).is_ok());
        let error = tokenizer.check_vocab(49151).unwrap_err().to_string();
        assert!(error.contains("token ids up to 49151"), "{error}");
        assert!(error.contains("the model's vocabulary has 49151 tokens"), "{error}");
    }

    #[test]
    fn truncation_and_padding_are_switched_off() {
        let folder = tempfile::tempdir().unwrap();
        let json = std::fs::read_to_string(smollm2_folder().join("tokenizer.json")).unwrap();
        let truncation = r#""truncation": {"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0}"#;
        let json = json.replacen("\"truncation\": null", truncation, 1);
        assert!(json.contains("max_length"));
        std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
        let tokenizer = TextTokenizer::load(folder.path()).unwrap();
        assert_eq!(tokenizer.encode("one two three four", false).unwrap().len(), 4);
    }

    #[test]
    fn unusable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = TextTokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot read") && error.ends_with("tokenizer.json"), "{error}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let error = TextTokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is no usable tokenizer"), "{error}");
    }
}
