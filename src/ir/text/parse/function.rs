//! Model-local functions.

use super::Parser;
use super::cursor::Parsed;
use crate::text::builder::GraphBuilder;
use crate::{Function, Graph, Value};

impl Parser<'_> {
    /// `<domain, opsets> name <attributes> (inputs) => (outputs) <types> { nodes }`
    pub(super) fn function(&mut self) -> Parsed<Function> {
        let mut function = self.function_header()?;
        let start = self.cursor.position();
        function.name = self.cursor.name()?;
        self.function_attributes(&mut function)?;
        let mut builder = GraphBuilder { graph: Graph::new(function.name.clone()) };
        self.cursor.expect('(')?;
        let mut inputs = self.items(')', Self::value)?;
        self.arrow()?;
        self.cursor.expect('(')?;
        let outputs = self.items(')', Self::value)?;
        let declared = self.declared()?;
        for input in &mut inputs {
            let listed = declared.iter().find(|(v, data)| v.name == input.name && data.is_none());
            if let Some((value, _)) = listed {
                *input = value.clone();
            }
        }
        for input in inputs {
            let added = builder.add_input(input);
            added.map_err(|e| self.cursor.error_at(start, e.to_string()))?;
        }
        // A type in the list counts, one in the head does where the list has none.
        let is_listed = |o: &Value| declared.iter().any(|(v, _)| v.name == o.name);
        let untyped = |o: Value| match is_listed(&o) {
            true => Value { name: o.name, ..Value::default() },
            false => o,
        };
        let heads: Vec<Value> = outputs.into_iter().map(untyped).collect();
        let names: Vec<String> = heads.iter().map(|o| o.name.clone()).collect();
        let typed = heads.into_iter().filter(|o| o.declared).map(|o| (o, None));
        let declared = declared.into_iter().chain(typed).collect();
        let mut builder = self.fill(builder, Vec::new(), declared)?;
        for name in &names {
            builder.add_output(name);
        }
        let body = builder.finish();
        function.body = body.map_err(|e| self.cursor.error_at(start, e.to_string()))?;
        Ok(function)
    }

    fn function_header(&mut self) -> Parsed<Function> {
        let mut function = Function::default();
        if !self.cursor.eat('<') {
            return Ok(function);
        }
        loop {
            let start = self.cursor.position();
            let key = self.cursor.identifier()?;
            self.cursor.expect(':')?;
            match key {
                "domain" => function.domain = self.cursor.string()?,
                "overload" => function.overload = self.cursor.string()?,
                "opset_import" => function.opset_imports = self.opset_imports()?,
                "doc_string" => function.doc = self.cursor.string()?,
                _ => return Err(self.cursor.error_at(start, format!("unknown key \"{key}\""))),
            }
            if !self.cursor.eat(',') {
                break;
            }
        }
        self.cursor.expect('>')?;
        Ok(function)
    }

    /// `<required, with_default: int = 3>`, or nothing.
    fn function_attributes(&mut self, function: &mut Function) -> Parsed<()> {
        if !self.cursor.eat('<') {
            return Ok(());
        }
        for (name, default) in self.items('>', Self::function_attribute)? {
            match default {
                Some(value) => function.attribute_defaults.push((name, value)),
                None => function.attributes.push(name),
            }
        }
        Ok(())
    }

    fn function_attribute(&mut self) -> Parsed<(String, Option<crate::Attribute>)> {
        let name = self.cursor.name()?;
        let has_default = matches!(self.cursor.peek(), Some(':' | '='));
        Ok((name, if has_default { Some(self.attribute_value()?) } else { None }))
    }
}
