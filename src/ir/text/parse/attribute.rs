//! Attributes.

use bytes::Bytes;

use super::Parser;
use super::cursor::{Literal, Parsed};
use crate::text::{ATTRIBUTE_TYPES, ENCODED, is_float_word};
use crate::{Attribute, Graph, Tensor};

/// A value on its own or in a list.
enum Single {
    Float(f32),
    Int(i64),
    String(Bytes),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Whole(Attribute),
}

impl Parser<'_> {
    /// `= value` or `: type = value` after an attribute's name.
    pub(super) fn attribute_value(&mut self) -> Parsed<Attribute> {
        let code = if self.cursor.eat(':') { Some(self.attribute_type()?) } else { None };
        self.cursor.expect('=')?;
        let start = self.cursor.position();
        if self.cursor.peek() != Some('[') {
            let single = self.single(code)?;
            let kind = single.kind();
            if code.zip(kind).is_some_and(|(wanted, kind)| wanted != kind) {
                return Err(self.cursor.error_at(start, "this value is not of the declared type"));
            }
            return Ok(single.alone());
        }
        let singles = self.bracketed(|parser| parser.single(None))?;
        list(singles, code).ok_or_else(|| {
            let message = "the elements of a list must be of one type, and an empty list needs \
                           its type before it, as in `axes: ints = []`";
            self.cursor.error_at(start, message)
        })
    }

    fn attribute_type(&mut self) -> Parsed<i32> {
        let start = self.cursor.position();
        let word = self.cursor.identifier()?;
        let known = ATTRIBUTE_TYPES.iter().find(|(_, name)| *name == word);
        let message = || format!("\"{word}\" is no type of attribute");
        known.map(|(code, _)| *code).ok_or_else(|| self.cursor.error_at(start, message()))
    }

    fn single(&mut self, code: Option<i32>) -> Parsed<Single> {
        if self.cursor.eat('@') {
            let name = self.cursor.name()?;
            return Ok(Single::Whole(Attribute::Ref(name, code.unwrap_or_default())));
        }
        if self.next_is_type() {
            return self.typed();
        }
        match self.cursor.peek_identifier() {
            Some(word) if !is_float_word(word) => return self.subgraph().map(Single::graph),
            _ => {}
        }
        let start = self.cursor.position();
        let literal = self.cursor.literal()?;
        let number = match literal {
            Literal::String(bytes) => return self.string_or_graph(bytes),
            Literal::Int(word) if code != Some(1) => word.parse().ok().map(Single::Int),
            Literal::Int(word) | Literal::Float(word) => word.parse().ok().map(Single::Float),
        };
        number.ok_or_else(|| self.cursor.error_at(start, "this number is out of range"))
    }

    /// A tensor, or an attribute kept as protobuf.
    fn typed(&mut self) -> Parsed<Single> {
        if self.cursor.peek_identifier() == Some(ENCODED) {
            self.cursor.identifier()?;
            return Ok(Single::Whole(Attribute::Other(self.encoded()?)));
        }
        let ty = self.value_type()?;
        // A tensor may have a name, which the IR does not keep.
        self.cursor.optional_name()?;
        self.cursor.eat('=');
        self.tensor_data(&ty).map(Single::Tensor)
    }

    /// A string before a parenthesis is the name of a graph.
    fn string_or_graph(&mut self, bytes: Vec<u8>) -> Parsed<Single> {
        if self.cursor.peek() != Some('(') {
            return Ok(Single::String(bytes.into()));
        }
        match String::from_utf8(bytes) {
            Ok(name) => self.subgraph_named(name).map(Single::graph),
            Err(_) => self.cursor.error("the name of this graph is not UTF-8"),
        }
    }
}

impl Single {
    fn graph(graph: Graph) -> Self {
        Self::Graph(Box::new(graph))
    }

    /// ONNX's number of the type, if the value shows it.
    fn kind(&self) -> Option<i32> {
        match self {
            Self::Float(_) => Some(1),
            Self::Int(_) => Some(2),
            Self::String(_) => Some(3),
            Self::Tensor(_) => Some(4),
            Self::Graph(_) => Some(5),
            Self::Whole(_) => None,
        }
    }

    fn alone(self) -> Attribute {
        match self {
            Self::Float(value) => Attribute::Float(value),
            Self::Int(value) => Attribute::Int(value),
            Self::String(value) => Attribute::String(value),
            Self::Tensor(value) => Attribute::Tensor(value),
            Self::Graph(value) => Attribute::Graph(value),
            Self::Whole(value) => value,
        }
    }

    fn into_float(self) -> Option<f32> {
        match self {
            Self::Float(value) => Some(value),
            Self::Int(value) => Some(value as f32),
            _ => None,
        }
    }
}

/// The list of one type; integers among floats are floats. `None` if the types differ.
fn list(singles: Vec<Single>, code: Option<i32>) -> Option<Attribute> {
    let has_float = singles.iter().any(|s| matches!(s, Single::Float(_)));
    let code = match (code, singles.first()) {
        (Some(code), _) => code,
        (None, Some(_)) if has_float => 6,
        (None, Some(first)) => first.kind()? + 5,
        (None, None) => return None,
    };
    let items = singles.into_iter();
    match code {
        6 => items.map(Single::into_float).collect::<Option<_>>().map(Attribute::Floats),
        7 => collect(items, |s| if let Single::Int(v) = s { Some(v) } else { None })
            .map(Attribute::Ints),
        8 => collect(items, |s| if let Single::String(v) = s { Some(v) } else { None })
            .map(Attribute::Strings),
        9 => collect(items, |s| if let Single::Tensor(v) = s { Some(v) } else { None })
            .map(Attribute::Tensors),
        10 => collect(items, |s| if let Single::Graph(v) = s { Some(*v) } else { None })
            .map(Attribute::Graphs),
        _ => None,
    }
}

fn collect<T>(
    items: impl Iterator<Item = Single>,
    pick: impl Fn(Single) -> Option<T>,
) -> Option<Vec<T>> {
    items.map(pick).collect()
}
