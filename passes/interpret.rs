//! Evaluating a part of a graph with the operators' reference forms.

use std::collections::{HashMap, HashSet};

use planish_ir::{Graph, Tensor, ValueId};
use planish_kernels::infer::closed;
use planish_kernels::{OpNode, ops};

/// Evaluates values of a graph for given inputs, each node at most once.
pub struct Interpreter<'a> {
    graph: &'a Graph,
    opset: &'a dyn Fn(&str) -> i64,
    known: HashMap<ValueId, Tensor>,
}

impl<'a> Interpreter<'a> {
    /// An interpreter of `graph` that starts from the values in `inputs`.
    pub fn new(
        graph: &'a Graph,
        opset: &'a dyn Fn(&str) -> i64,
        inputs: HashMap<ValueId, Tensor>,
    ) -> Self {
        Self { graph, opset, known: inputs }
    }

    /// The value of `target`.
    ///
    /// # Errors
    /// A sentence that names the node without reference form, the failed one, or the input that
    /// was not given.
    pub fn value(&mut self, target: ValueId) -> Result<Tensor, String> {
        let mut stack = vec![target];
        // Nodes whose inputs were asked for: none of them can be missing any more when the node
        // comes up again, unless it leads to itself.
        let mut opened = HashSet::new();
        while let Some(value) = stack.last().copied() {
            if self.known.contains_key(&value) {
                stack.pop();
                continue;
            }
            if let Some(tensor) = self.graph.constant(value) {
                self.known.insert(value, tensor.clone());
                continue;
            }
            let Some((id, _)) = self.graph.producer(value) else {
                return Err(format!("no value for \"{}\"", self.graph.value(value).name));
            };
            let inputs = self.graph.inputs_and_captures(id).into_iter();
            let missing: Vec<ValueId> = inputs.filter(|v| !self.known.contains_key(v)).collect();
            if missing.is_empty() {
                self.run(id)?;
            } else if !opened.insert(id) {
                return Err("the graph has a cycle".into());
            } else {
                stack.extend(missing);
            }
        }
        Ok(self.known[&target].clone())
    }

    fn run(&mut self, id: planish_ir::NodeId) -> Result<(), String> {
        let node = &*closed(self.graph.node(id));
        let op = ops::find(&node.domain, &node.op_type)
            .ok_or_else(|| format!("{} has no reference form", node.describe()))?;
        let inputs: Vec<Option<Tensor>> =
            node.inputs.iter().map(|v| v.and_then(|v| self.known.get(&v).cloned())).collect();
        let view = OpNode { node, opset: (self.opset)(&node.domain) };
        let outputs =
            op.evaluate(&view, &inputs).map_err(|error| format!("{}: {error}", node.describe()))?;
        let mut outputs = outputs.into_iter();
        for value in &node.outputs {
            let tensor = outputs.next();
            if let Some(value) = value {
                let none = || format!("{} has more outputs than its operator", node.describe());
                self.known.insert(*value, tensor.ok_or_else(none)?);
            }
        }
        Ok(())
    }
}
