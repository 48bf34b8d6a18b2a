//! Reading models from ONNX's text syntax.

mod attribute;
mod cursor;
mod function;
mod graph;
mod node;
mod tensor;
mod types;

use crate::{Model, OpsetImport, verify};
use cursor::{Cursor, Parsed};

/// Levels of subgraphs beyond which a text is refused.
const MAX_DEPTH: usize = 32;

/// Where and why a text is not a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads the text of a model. The header and the functions may be absent, so the text of a
/// graph is the text of a model.
///
/// # Errors
/// If the text does not follow the syntax, or says what no graph can mean (a value that is
/// defined twice or never, a cycle, a tensor with missing elements).
pub fn parse(text: &str) -> Result<Model, ParseError> {
    let mut parser = Parser { cursor: Cursor::new(text), n_unknown_dims: 0, depth: 0 };
    let mut model = parser.header()?;
    let start = parser.cursor.position();
    let builder = parser.graph()?;
    model.graph = builder.finish().map_err(|e| parser.cursor.error_at(start, e.to_string()))?;
    while !parser.cursor.is_at_end() {
        model.functions.push(parser.function()?);
    }
    verify(&model).map_err(|e| parser.cursor.error_at(start, e.to_string()))?;
    Ok(model)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    n_unknown_dims: usize,
    depth: usize,
}

impl Parser<'_> {
    /// `<ir_version: 10, opset_import: ["" : 23], …>`
    fn header(&mut self) -> Parsed<Model> {
        let mut model = Model::default();
        if !self.cursor.eat('<') {
            return Ok(model);
        }
        loop {
            let start = self.cursor.position();
            let key = self.cursor.identifier()?;
            self.cursor.expect(':')?;
            match key {
                "ir_version" => model.ir_version = self.cursor.integer()?,
                "opset_import" => model.opset_imports = self.opset_imports()?,
                "producer_name" => model.producer_name = self.cursor.string()?,
                "producer_version" => model.producer_version = self.cursor.string()?,
                "domain" => model.domain = self.cursor.string()?,
                "model_version" => model.model_version = self.cursor.integer()?,
                "doc_string" => model.doc = self.cursor.string()?,
                "metadata_props" => model.metadata = self.metadata()?,
                _ => return Err(self.cursor.error_at(start, format!("unknown key \"{key}\""))),
            }
            if !self.cursor.eat(',') {
                break;
            }
        }
        self.cursor.expect('>')?;
        Ok(model)
    }

    /// `["" : 23, "com.microsoft" : 1]`
    fn opset_imports(&mut self) -> Parsed<Vec<OpsetImport>> {
        self.bracketed(|parser| {
            let domain = parser.cursor.string()?;
            parser.cursor.expect(':')?;
            let domain = if domain == "ai.onnx" { String::new() } else { domain };
            Ok(OpsetImport { domain, version: parser.cursor.integer()? })
        })
    }

    /// `["key": "value"]`
    fn metadata(&mut self) -> Parsed<Vec<(String, String)>> {
        self.bracketed(|parser| {
            let key = parser.cursor.string()?;
            parser.cursor.expect(':')?;
            Ok((key, parser.cursor.string()?))
        })
    }

    /// Items between brackets, separated by commas.
    fn bracketed<T>(&mut self, item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.cursor.expect('[')?;
        self.items(']', item)
    }

    /// Items separated by commas up to `close`.
    fn items<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        if self.cursor.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.cursor.eat(',') {
                self.cursor.expect(close)?;
                return Ok(items);
            }
        }
    }
}
