//! Names, strings and numbers.

use crate::text::is_reserved;

/// A name: bare if it is an identifier, else in quotes.
pub(super) fn name(text: &str) -> String {
    if is_identifier(text) && !is_reserved(text) { text.to_owned() } else { quoted(text) }
}

/// A part of an operator's name, where no type can stand.
pub(super) fn word(text: &str) -> String {
    if is_identifier(text) { text.to_owned() } else { quoted(text) }
}

pub(super) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A string literal.
pub(super) fn quoted(text: &str) -> String {
    quoted_bytes(text.as_bytes())
}

/// A string literal; bytes that are no UTF-8 as `\xHH`.
pub(super) fn quoted_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

/// The shortest literal that reads back as the same number; always told from an integer.
pub(super) fn f32(value: f32) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:?}") }
}

/// As [`f32`].
pub(super) fn f64(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:?}") }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
