//! From a text file to the tokens that the perplexity protocol is about.
use super::EvalError;
use crate::text::TextTokenizer;

/// Joins the rows of a text file as the protocol asks for.
///
/// The file is split into rows at line ends, each row keeps its line end, blank rows become the
/// empty string, and all rows are joined with two line ends. What follows the last line end is a
/// row too. CRLF and CR are read as LF, as Python's text mode does. This is what evaluation scripts
/// since GPTQ (Frantar et al., 2022) do with the rows of the WikiText data set.
pub fn join_rows(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let last = text.ends_with('\n').then_some("");
    let rows: Vec<&str> = text
        .split_inclusive('\n')
        .chain(last)
        .map(|row| if row.trim().is_empty() { "" } else { row })
        .collect();
    rows.join("\n\n")
}

/// The tokens of a text file by the perplexity protocol: joined rows, tokenised once, without
/// special tokens.
///
/// # Errors
/// [`EvalError::EmptyText`] and [`EvalError::Text`].
pub fn tokenize(tokenizer: &TextTokenizer, text: &str) -> Result<Vec<u32>, EvalError> {
    if text.trim().is_empty() {
        return Err(EvalError::EmptyText);
    }
    Ok(tokenizer.encode(&join_rows(text), false)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::text::tokenizer::tests::smollm2;

    #[test]
    fn rows_keep_their_line_ends_and_blank_ones_vanish() {
        assert_eq!(join_rows(" \n = A = \n\t\ntext"), "\n\n = A = \n\n\n\n\ntext");
        assert_eq!(join_rows("a"), "a");
        assert_eq!(join_rows(""), "");
    }

    #[test]
    fn the_end_of_the_file_is_a_row() {
        assert_eq!(join_rows("a\nb\n"), "a\n\n\nb\n\n\n");
    }

    #[test]
    fn every_spelling_of_a_line_end_is_read_alike() {
        let expected = join_rows("a\nb\n\nc");
        assert_eq!(join_rows("a\r\nb\r\n\r\nc"), expected);
        assert_eq!(join_rows("a\rb\r\rc"), expected);
    }

    #[test]
    fn wikitext_has_as_many_tokens_as_published() {
        let path = "../tests/data/wikitext-2/test.raw.txt";
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        assert_eq!(tokenize(&smollm2(), &text.unwrap()).unwrap().len(), 304_830);
    }

    #[test]
    fn blank_texts_are_errors() {
        assert!(matches!(tokenize(&smollm2(), " \n\n"), Err(EvalError::EmptyText)));
    }
}
