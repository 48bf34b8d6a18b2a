//! Nodes.

use super::Parser;
use super::cursor::Parsed;
use crate::Node;
use crate::text::builder::NamedNode;

impl Parser<'_> {
    /// `[name] outputs = domain.Op:overload <attributes> (inputs)`, or the attributes last.
    pub(super) fn node(&mut self) -> Parsed<NamedNode> {
        let mut node = Node::default();
        if self.cursor.eat('[') {
            node.name = self.cursor.optional_name()?.unwrap_or_default();
            self.cursor.expect(']')?;
        }
        let outputs = self.names()?;
        self.cursor.expect('=')?;
        let mut parts = vec![self.cursor.name()?];
        while self.cursor.eat('.') {
            parts.push(self.cursor.name()?);
        }
        node.op_type = parts.pop().unwrap_or_default();
        node.domain = Some(parts.join(".")).filter(|d| d != "ai.onnx").unwrap_or_default();
        if self.cursor.eat(':') {
            node.overload = self.cursor.name()?;
        }
        self.attributes(&mut node)?;
        self.cursor.expect('(')?;
        let inputs = self.names()?;
        self.cursor.expect(')')?;
        if node.attributes.is_empty() {
            self.attributes(&mut node)?;
        }
        Ok(NamedNode { node, inputs, outputs })
    }

    /// Names separated by commas. `""` or nothing before a comma is an absent one; a comma at
    /// the end counts for nothing.
    fn names(&mut self) -> Parsed<Vec<String>> {
        let mut names = Vec::new();
        loop {
            let name = self.cursor.optional_name()?;
            let is_last = !self.cursor.eat(',');
            match name {
                Some(name) => names.push(name),
                None if is_last => return Ok(names),
                None => names.push(String::new()),
            }
            if is_last {
                return Ok(names);
            }
        }
    }

    fn attributes(&mut self, node: &mut Node) -> Parsed<()> {
        if !self.cursor.eat('<') {
            return Ok(());
        }
        loop {
            let start = self.cursor.position();
            let name = self.cursor.name()?;
            let value = self.attribute_value()?;
            if node.attributes.insert(name.clone(), value).is_some() {
                let message = format!("the attribute \"{name}\" is given twice");
                return Err(self.cursor.error_at(start, message));
            }
            if !self.cursor.eat(',') {
                return self.cursor.expect('>');
            }
        }
    }
}
