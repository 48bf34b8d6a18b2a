//! ONNX's text syntax: printing graphs for people and golden tests, and reading them back.
//!
//! [`print`] and [`parse`] speak the language of ONNX's own `onnx.printer` and `onnx.parser`:
//!
//! ```text
//! <ir_version: 10, opset_import: ["" : 23]>
//! agraph (float[N,128] X) => (float[N,10] Y)
//! <
//!    float[128,10] W = {…}
//! >
//! {
//!    [linear] Y = MatMul (X, W)
//! }
//! ```
//!
//! Where that language has no words, these are added: any name may be quoted (values, graphs,
//! attributes, overloads, parts of a domain: `"my-domain".Op`); `undefined[N] x` is a tensor of
//! unknown element type; `encoded("0a02…")` is a type or attribute that the IR keeps as protobuf;
//! `\xHH` in a string is a byte that is no UTF-8; lists of tensors and graphs are read as they
//! are printed; functions' bodies may have initializers. 4-bit and 2-bit tensors list their
//! elements one by one (`onnx.parser` would put each into a byte of its own).
//!
//! Not in the text: doc strings and metadata of graphs, nodes and values, and which initializers
//! have a declared type.

pub mod builder;
pub mod names;

mod parse;
mod print;
mod unknown;

#[cfg(test)]
mod tests;

pub use parse::{ParseError, parse};
pub use print::{Print, PrintOptions, print};
pub use unknown::{is_unknown_dim, unknown_dim};

/// ONNX's numbers of the attribute types and their names in the text.
const ATTRIBUTE_TYPES: [(i32, &str); 14] = [
    (1, "float"),
    (2, "int"),
    (3, "string"),
    (4, "tensor"),
    (5, "graph"),
    (6, "floats"),
    (7, "ints"),
    (8, "strings"),
    (9, "tensors"),
    (10, "graphs"),
    (11, "sparse_tensor"),
    (12, "sparse_tensors"),
    (13, "type_proto"),
    (14, "type_protos"),
];

/// What `Tensor`s without element type are called.
const UNDEFINED: &str = "undefined";

/// The word before the protobuf of a type or attribute.
const ENCODED: &str = "encoded";

/// Words that begin a type or number and so can't stand for a name without quotes.
fn is_reserved(word: &str) -> bool {
    let words = ["seq", "map", "optional", "sparse_tensor", "opaque", UNDEFINED, ENCODED];
    words.contains(&word) || crate::DataType::from_name(word).is_some() || is_float_word(word)
}

/// Whether a word is a float literal.
fn is_float_word(word: &str) -> bool {
    ["inf", "infinity", "nan"].iter().any(|w| word.eq_ignore_ascii_case(w))
}
