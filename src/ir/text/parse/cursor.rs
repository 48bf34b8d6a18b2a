//! The words of a text.

use super::ParseError;

/// A place in a text, and the words from there on. Spaces and `#` comments are skipped.
pub(super) struct Cursor<'a> {
    text: &'a str,
    position: usize,
}

/// A number or string as it stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal<'a> {
    Int(&'a str),
    Float(&'a str),
    String(Vec<u8>),
}

pub(super) type Parsed<T> = Result<T, ParseError>;

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// Where the next word begins.
    pub(super) fn position(&mut self) -> usize {
        self.skip_spaces();
        self.position
    }

    /// An error at the next word.
    pub(super) fn error<T>(&mut self, message: impl Into<String>) -> Parsed<T> {
        let position = self.position();
        Err(self.error_at(position, message))
    }

    /// An error at a place that was passed before.
    pub(super) fn error_at(&self, position: usize, message: impl Into<String>) -> ParseError {
        let before = &self.text[..position];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn skip_spaces(&mut self) {
        loop {
            let rest = self.rest().trim_ascii_start();
            self.position = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.position += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// The next character.
    pub(super) fn peek(&mut self) -> Option<char> {
        self.skip_spaces();
        self.rest().chars().next()
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Passes `mark` if it comes next.
    pub(super) fn eat(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(mark);
        if found {
            self.position += mark.len_utf8();
        }
        found
    }

    pub(super) fn expect(&mut self, mark: char) -> Parsed<()> {
        if self.eat(mark) {
            return Ok(());
        }
        match self.peek() {
            Some(found) => self.error(format!("expected '{mark}', found '{found}'")),
            None => self.error(format!("expected '{mark}', found the end of the text")),
        }
    }

    /// The identifier that comes next, which is not passed.
    pub(super) fn peek_identifier(&mut self) -> Option<&'a str> {
        self.skip_spaces();
        let rest = self.rest();
        let is_start = rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        is_start.then(|| &rest[..end.unwrap_or(rest.len())])
    }

    pub(super) fn identifier(&mut self) -> Parsed<&'a str> {
        match self.peek_identifier() {
            Some(word) => {
                self.position += word.len();
                Ok(word)
            }
            None => self.error("expected an identifier"),
        }
    }

    /// An identifier or a quoted name, if one comes next.
    pub(super) fn optional_name(&mut self) -> Parsed<Option<String>> {
        if self.peek() == Some('"') {
            return self.string().map(Some);
        }
        match self.peek_identifier() {
            Some(_) => Ok(Some(self.identifier()?.to_owned())),
            None => Ok(None),
        }
    }

    pub(super) fn name(&mut self) -> Parsed<String> {
        match self.optional_name()? {
            Some(name) => Ok(name),
            None => self.error("expected a name"),
        }
    }

    /// A quoted string in UTF-8.
    pub(super) fn string(&mut self) -> Parsed<String> {
        let start = self.position();
        match String::from_utf8(self.string_bytes()?) {
            Ok(text) => Ok(text),
            Err(_) => Err(self.error_at(start, "this string is not UTF-8")),
        }
    }

    pub(super) fn string_bytes(&mut self) -> Parsed<Vec<u8>> {
        self.expect('"')?;
        let mut out = Vec::new();
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.position) {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(out);
                }
                Some(b'\\') => self.escape(&mut out)?,
                Some(byte) => {
                    out.push(*byte);
                    self.position += 1;
                }
                None => return self.error("this string has no end"),
            }
        }
    }

    /// `\xHH` is a byte, and any other character after a backslash stands for itself.
    fn escape(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let rest = &self.text.as_bytes()[self.position + 1..];
        let code = rest.get(1..3).and_then(hex_byte);
        match (rest.first(), code) {
            (None, _) => return self.error("this string has no end"),
            (Some(b'x'), Some(code)) => {
                out.push(code);
                self.position += 4;
            }
            (Some(byte), _) => {
                // The further bytes of a character are none of `"` and `\`.
                out.push(*byte);
                self.position += 2;
            }
        }
        Ok(())
    }

    /// A number, string, or one of the words `inf`, `infinity`, `nan`.
    pub(super) fn literal(&mut self) -> Parsed<Literal<'a>> {
        if self.peek() == Some('"') {
            return Ok(Literal::String(self.string_bytes()?));
        }
        self.skip_spaces();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        let literal = if is_integer(word) {
            Literal::Int(word)
        } else if word.parse::<f64>().is_ok() {
            Literal::Float(word)
        } else {
            return self.error("expected a number or a string");
        };
        self.position += word.len();
        Ok(literal)
    }

    pub(super) fn integer<T: TryFrom<i128>>(&mut self) -> Parsed<T> {
        let start = self.position();
        let Literal::Int(word) = self.literal()? else {
            return Err(self.error_at(start, "expected an integer"));
        };
        let value = word.parse::<i128>().ok().and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| self.error_at(start, format!("{word} is out of range here")))
    }
}

fn is_integer(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The byte that two hexadecimal digits say.
pub(super) fn hex_byte(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
