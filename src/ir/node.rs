//! Nodes: one application of an operator.

use std::collections::BTreeMap;

use crate::{Attribute, ValueId};

/// Identity of a node within one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct NodeId(pub(crate) petgraph::stable_graph::NodeIndex);

impl NodeId {
    /// A small number, unique within the graph, for dense side tables.
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// One application of an operator, as ONNX's `NodeProto`.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Name; may be empty, need not be unique.
    pub name: String,
    /// Operator.
    pub op_type: String,
    /// Domain of the operator; `""` is ONNX's own (`ai.onnx` is read as `""`).
    pub domain: String,
    /// Overload of a model-local function.
    pub overload: String,
    /// Ordered inputs; `None` where an optional input is absent.
    pub inputs: Vec<Option<ValueId>>,
    /// Ordered outputs; `None` where an optional output is absent.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
    /// ONNX `doc_string`.
    pub doc: String,
    /// ONNX `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
}

impl Node {
    /// A node of ONNX's own domain without attributes; outputs are added with
    /// [`Node::with_outputs`] or by [`crate::Graph::add_op`].
    pub fn new(op_type: impl Into<String>, inputs: Vec<Option<ValueId>>) -> Self {
        Self { op_type: op_type.into(), inputs, ..Self::default() }
    }

    /// Sets the domain.
    #[must_use]
    pub fn with_domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// Sets the name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets one attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Self {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the outputs.
    #[must_use]
    pub fn with_outputs(mut self, outputs: Vec<Option<ValueId>>) -> Self {
        self.outputs = outputs;
        self
    }

    /// Whether this applies ONNX's own operator `op_type`.
    pub fn is(&self, op_type: &str) -> bool {
        self.domain.is_empty() && self.op_type == op_type
    }

    /// Whether this applies `op_type` of `domain`.
    pub fn is_of(&self, domain: &str, op_type: &str) -> bool {
        self.domain == domain && self.op_type == op_type
    }

    /// The input at `index`, `None` if absent.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// The output at `index`, `None` if absent.
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }

    /// The integer attribute `name`, or `default` where it is absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attributes.get(name).and_then(Attribute::as_int).unwrap_or(default)
    }

    /// The float attribute `name`, or `default` where it is absent.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attributes.get(name).and_then(Attribute::as_float).unwrap_or(default)
    }

    /// The integer list `name`, if present.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attributes.get(name).and_then(Attribute::as_ints)
    }

    /// The string attribute `name`, or `default` where it is absent.
    pub fn str<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.attributes.get(name).and_then(Attribute::as_str).unwrap_or(default)
    }

    /// What to call this node in a message: operator and name, or operator and first output.
    pub fn describe(&self) -> String {
        let op = if self.domain.is_empty() {
            self.op_type.clone()
        } else {
            format!("{}.{}", self.domain, self.op_type)
        };
        if self.name.is_empty() { op } else { format!("{op} \"{}\"", self.name) }
    }
}
