//! Types of values.

use bytes::Bytes;

use super::Parser;
use super::cursor::{Parsed, hex_byte};
use crate::text::{ENCODED, UNDEFINED, is_reserved, unknown_dim};
use crate::{DataType, Dim, TensorType, Value, ValueType};

impl Parser<'_> {
    /// Whether a type comes next. A reserved word in quotes is a name.
    pub(super) fn next_is_type(&mut self) -> bool {
        let word = self.cursor.peek_identifier();
        word.is_some_and(|w| is_reserved(w) && !crate::text::is_float_word(w))
    }

    /// `float[N,"a + b",?,4] name`, or the name alone.
    pub(super) fn value(&mut self) -> Parsed<Value> {
        let ty = if self.next_is_type() { self.value_type()? } else { ValueType::Unknown };
        let name = self.cursor.name()?;
        if name.is_empty() {
            return self.cursor.error("a value needs a name");
        }
        Ok(Value { name, declared: ty != ValueType::Unknown, ty, ..Value::default() })
    }

    pub(super) fn value_type(&mut self) -> Parsed<ValueType> {
        let start = self.cursor.position();
        let word = self.cursor.identifier()?;
        if word == ENCODED {
            return Ok(ValueType::Other(self.encoded()?));
        }
        let dtype = DataType::from_name(word);
        if dtype.is_none() && word != UNDEFINED {
            let message = format!("\"{word}\" is no tensor type, and others can't be read");
            return Err(self.cursor.error_at(start, message));
        }
        let shape = if !self.cursor.eat('[') {
            Some(Vec::new())
        } else {
            Some(self.items(']', Self::dim)?).filter(|dims| !dims.is_empty())
        };
        Ok(ValueType::Tensor(TensorType { dtype, shape }))
    }

    /// A number, a symbol, an expression in quotes, or `?`.
    fn dim(&mut self) -> Parsed<Dim> {
        if self.cursor.eat('?') {
            self.n_unknown_dims += 1;
            return Ok(unknown_dim(self.n_unknown_dims - 1));
        }
        match self.cursor.optional_name()? {
            Some(text) => Ok(Dim::parse(&text)),
            None => Ok(Dim::from(self.cursor.integer::<i64>()?)),
        }
    }

    /// `("0a02")`, the protobuf after the word `encoded`.
    pub(super) fn encoded(&mut self) -> Parsed<Bytes> {
        self.cursor.expect('(')?;
        let start = self.cursor.position();
        let digits = self.cursor.string_bytes()?;
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(hex_byte).collect();
        let bytes = bytes.filter(|_| digits.len() % 2 == 0);
        self.cursor.expect(')')?;
        bytes
            .map(Bytes::from)
            .ok_or_else(|| self.cursor.error_at(start, "expected hexadecimal digits in pairs"))
    }
}
