//! Graphs and subgraphs.

use std::collections::HashMap;

use super::cursor::Parsed;
use super::{MAX_DEPTH, Parser};
use crate::text::builder::{BuildError, GraphBuilder};
use crate::{Graph, Tensor, Value};

/// What stands between `<` and `>`: data and types of values.
type Declared = Vec<(Value, Option<Tensor>)>;

impl Parser<'_> {
    /// A graph; what it reads without defining it is left open.
    pub(super) fn graph(&mut self) -> Parsed<GraphBuilder> {
        let name = self.cursor.name()?;
        self.graph_named(name)
    }

    /// A graph in an attribute.
    pub(super) fn subgraph(&mut self) -> Parsed<Graph> {
        let name = self.cursor.name()?;
        self.subgraph_named(name)
    }

    pub(super) fn subgraph_named(&mut self, name: String) -> Parsed<Graph> {
        if self.depth == MAX_DEPTH {
            return self.cursor.error("subgraphs are nested too deeply");
        }
        self.depth += 1;
        let builder = self.graph_named(name)?;
        self.depth -= 1;
        Ok(builder.finish_subgraph())
    }

    fn graph_named(&mut self, name: String) -> Parsed<GraphBuilder> {
        let mut builder = GraphBuilder { graph: Graph::new(name) };
        let start = self.cursor.position();
        self.cursor.expect('(')?;
        for (value, default) in self.items(')', Self::value_with_data)? {
            self.check(start, builder.add_input(value.clone()))?;
            if let Some(tensor) = default {
                self.check(start, builder.add_initializer(value, tensor))?;
            }
        }
        self.arrow()?;
        self.cursor.expect('(')?;
        let outputs = self.items(')', Self::value)?;
        let declared = self.declared()?;
        self.fill(builder, outputs, declared)
    }

    pub(super) fn arrow(&mut self) -> Parsed<()> {
        self.cursor.expect('=')?;
        self.cursor.expect('>')
    }

    /// `<float[2] w = {1, 2}, float[N] x>`, or nothing.
    pub(super) fn declared(&mut self) -> Parsed<Declared> {
        if self.cursor.eat('<') { self.items('>', Self::value_with_data) } else { Ok(Vec::new()) }
    }

    /// A value, with its data if an equals sign follows.
    fn value_with_data(&mut self) -> Parsed<(Value, Option<Tensor>)> {
        let value = self.value()?;
        let data = if self.cursor.eat('=') { Some(self.tensor_data(&value.ty)?) } else { None };
        Ok((value, data))
    }

    /// Adds initializers, nodes (which come next) and outputs.
    pub(super) fn fill(
        &mut self,
        mut builder: GraphBuilder,
        outputs: Vec<Value>,
        declared: Declared,
    ) -> Parsed<GraphBuilder> {
        let start = self.cursor.position();
        let names: Vec<String> = outputs.iter().map(|o| o.name.clone()).collect();
        let mut types: HashMap<String, Value> = HashMap::new();
        let mut initializers = Vec::new();
        for value in outputs {
            types.entry(value.name.clone()).or_insert(value);
        }
        for (value, data) in declared {
            match data {
                Some(data) => initializers.push((value, data)),
                None => {
                    types.entry(value.name.clone()).or_insert(value);
                }
            }
        }
        for (mut value, data) in initializers {
            value.declared = false;
            self.check(start, builder.add_initializer(value, data))?;
        }
        self.nodes(&mut builder, &mut types)?;
        for name in names {
            builder.add_output(&name);
        }
        Ok(builder)
    }

    /// `{ nodes }`, in any order.
    fn nodes(
        &mut self,
        builder: &mut GraphBuilder,
        types: &mut HashMap<String, Value>,
    ) -> Parsed<()> {
        self.cursor.expect('{')?;
        let mut nodes = Vec::new();
        while !self.cursor.eat('}') {
            let start = self.cursor.position();
            let named = self.node()?;
            for output in named.outputs.iter().filter(|o| !o.is_empty()) {
                let untyped = || Value { name: output.clone(), ..Value::default() };
                let value = types.remove(output).unwrap_or_else(untyped);
                self.check(start, builder.add_result(value, &named.node))?;
            }
            nodes.push((start, named));
        }
        for (start, named) in nodes {
            self.check(start, builder.add_node(named))?;
        }
        Ok(())
    }

    /// An error of the builder about what stands at `position`.
    fn check<T>(&self, position: usize, result: Result<T, BuildError>) -> Parsed<T> {
        result.map_err(|error| self.cursor.error_at(position, error.to_string()))
    }
}
