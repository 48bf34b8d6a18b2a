//! Printing tokens as they come, never half a character.
use super::{TextError, TextTokenizer};

/// What decoders print for bytes that are no UTF-8, complete or not.
const BROKEN: char = char::REPLACEMENT_CHARACTER;

/// An unfinished UTF-8 character has at most this many bytes; what is broken before them stays
/// broken.
const MOST_PENDING: usize = 3;

/// Turns one token after the other into text.
///
/// Tokens of a byte-level vocabulary may end within a character, so the text of a token is held
/// back until its last character is whole. Decoders look at neighbours too (leading spaces), so
/// tokens are decoded after the ones whose text was printed last.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// Tokens since the last one that ended with a whole character, with the group before them as
    /// context.
    window: Vec<u32>,
    /// How many tokens of the window are context.
    context: usize,
    /// The part of the window's text that was handed out.
    printed: String,
}

impl<'a> TextStream<'a> {
    /// A stream before its first token.
    pub(super) fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self { tokenizer, window: Vec::new(), context: 0, printed: String::new() }
    }

    /// Takes a token; returns the text that is certain now, which may be empty.
    ///
    /// # Errors
    /// [`TextError::Coding`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        let piece = self.advance(certain(&text));
        if text.ends_with(BROKEN) {
            return Ok(piece.unwrap_or_default());
        }
        let piece = piece.map_or_else(|| self.without_context(), Ok)?;
        self.shift()?;
        Ok(piece)
    }

    /// Returns what was held back: at most the U+FFFD of an unfinished character.
    ///
    /// # Errors
    /// [`TextError::Coding`].
    pub fn finish(&mut self) -> Result<String, TextError> {
        let text = self.tokenizer.decode(&self.window)?;
        let piece = self.advance(&text).map_or_else(|| self.without_context(), Ok)?;
        *self = Self::new(self.tokenizer);
        Ok(piece)
    }

    /// What `text`, the certain text of the window, has beyond the part printed.
    ///
    /// Nothing when the printed part changed: byte-fallback decoders show a whole run of byte
    /// tokens as broken while its last character is unfinished.
    fn advance(&mut self, text: &str) -> Option<String> {
        let piece = text.strip_prefix(self.printed.as_str())?.to_owned();
        self.printed.push_str(&piece);
        Some(piece)
    }

    /// The text of the window's tokens after the context, where the context's own text changed.
    fn without_context(&self) -> Result<String, TextError> {
        self.tokenizer.decode(self.window.get(self.context..).unwrap_or_default())
    }

    /// Drops the context and makes the tokens after it the new context.
    fn shift(&mut self) -> Result<(), TextError> {
        self.window.drain(..self.context);
        self.context = self.window.len();
        self.printed = self.tokenizer.decode(&self.window)?;
        Ok(())
    }
}

/// `text` without the broken characters at its end that later tokens may still mend.
fn certain(text: &str) -> &str {
    let mut end = text;
    for _ in 0..MOST_PENDING {
        end = end.strip_suffix(BROKEN).unwrap_or(end);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::smollm2;
    use super::*;

    fn pieces(tokenizer: &TextTokenizer, ids: &[u32]) -> Vec<String> {
        let mut stream = tokenizer.stream();
        let mut pieces: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn pieces_join_to_the_decoded_text_and_hold_whole_characters() {
        let tokenizer = smollm2();
        let text = "Zürich — 東京の天気 🏳️‍🌈👩‍🚀 ᚠᛇᚻ, naïve\n\n  end";
        let ids = tokenizer.encode(text, false).unwrap();
        let pieces = pieces(&tokenizer, &ids);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| !piece.contains(BROKEN)), "{pieces:?}");
        assert!(pieces.iter().any(String::is_empty), "some token ends within a character");
    }

    #[test]
    fn text_is_not_held_back_without_need() {
        let tokenizer = smollm2();
        let ids = tokenizer.encode("The capital of France", false).unwrap();
        assert_eq!(pieces(&tokenizer, &ids), ["The", " capital", " of", " France", ""]);
    }

    #[test]
    fn an_unfinished_character_comes_out_at_the_end() {
        let tokenizer = smollm2();
        let mut ids = tokenizer.encode("a🙂", false).unwrap();
        ids.pop();
        assert_eq!(pieces(&tokenizer, &ids).concat(), "a\u{FFFD}");
    }

    #[test]
    fn broken_bytes_do_not_hold_the_text_back_for_ever() {
        let tokenizer = smollm2();
        let smile = tokenizer.encode("🙂", false).unwrap();
        // Continuation bytes without a beginning never become a character.
        let broken = vec![smile[smile.len() - 1]; 12];
        let mut stream = tokenizer.stream();
        let early: String = broken.iter().map(|&id| stream.push(id).unwrap()).collect();
        let rest = stream.finish().unwrap();
        assert_eq!(rest.chars().count(), MOST_PENDING);
        assert_eq!(early + &rest, tokenizer.decode(&broken).unwrap());
    }

    /// A tokenizer with the 256 byte tokens of SentencePiece as ids 0 to 255, and "a" as 256.
    fn byte_fallback() -> TextTokenizer {
        let bytes: String = (0..256).map(|b| format!("\"<0x{b:02X}>\": {b}, ")).collect();
        let json = format!(
            r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "model": {{"type": "BPE", "byte_fallback": true,
            "vocab": {{{bytes} "a": 256}}, "merges": []}},
            "decoder": {{"type": "Sequence", "decoders": [{{"type": "ByteFallback"}},
            {{"type": "Fuse"}}]}}}}"#
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
        TextTokenizer::load(folder.path()).unwrap()
    }

    #[test]
    fn byte_fallback_characters_come_whole() {
        let tokenizer = byte_fallback();
        let ids: Vec<u32> =
            "東京a🙂".bytes().map(|b| if b == b'a' { 256 } else { b.into() }).collect();
        let pieces = pieces(&tokenizer, &ids);
        assert_eq!(pieces.concat(), "東京a🙂");
        assert!(pieces.iter().all(|piece| piece.chars().count() <= 1), "{pieces:?}");
    }

    #[test]
    fn a_stray_byte_after_a_character_loses_no_text() {
        let tokenizer = byte_fallback();
        let ids = [0xE6, 0x9D, 0xB1, 0xFF, 256];
        assert_eq!(pieces(&tokenizer, &ids).concat(), "東\u{FFFD}a");
    }

    #[test]
    fn special_tokens_print_nothing() {
        let tokenizer = smollm2();
        let ids = [&[1][..], &tokenizer.encode("hello", false).unwrap(), &[2]].concat();
        assert_eq!(pieces(&tokenizer, &ids).concat(), "hello");
    }
}
