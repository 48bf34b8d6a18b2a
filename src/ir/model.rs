//! A model: a graph with the operator sets, functions and metadata around it.

use crate::{Attribute, Graph};

/// A version of a domain's operator set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpsetImport {
    /// `""` is ONNX's own domain.
    pub domain: String,
    /// Version.
    pub version: i64,
}

/// A model-local function, ONNX's `FunctionProto`: the body of an operator in other operators.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Operator that it defines.
    pub name: String,
    /// Domain of that operator.
    pub domain: String,
    /// Overload.
    pub overload: String,
    /// Names of attributes without default.
    pub attributes: Vec<String>,
    /// Attributes with their defaults.
    pub attribute_defaults: Vec<(String, Attribute)>,
    /// Operator sets that the body uses.
    pub opset_imports: Vec<OpsetImport>,
    /// The body; its inputs and outputs are the formal parameters.
    pub body: Graph,
    /// ONNX `doc_string`.
    pub doc: String,
    /// ONNX `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
}

/// ONNX's `ModelProto`.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets that the graph uses.
    pub opset_imports: Vec<OpsetImport>,
    /// Tool that wrote the file.
    pub producer_name: String,
    /// Its version.
    pub producer_version: String,
    /// Reverse domain name of the model's owner.
    pub domain: String,
    /// Version of the model.
    pub model_version: i64,
    /// ONNX `doc_string`.
    pub doc: String,
    /// ONNX `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Model-local functions.
    pub functions: Vec<Function>,
    /// The main graph.
    pub graph: Graph,
}

impl Model {
    /// Version of `domain`'s operator set, if the model imports it.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opset_imports.iter().find(|o| o.domain == domain).map(|o| o.version)
    }

    /// Imports `domain` at `version`, in place of what was imported before.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        match self.opset_imports.iter_mut().find(|o| o.domain == domain) {
            Some(import) => import.version = version,
            None => self.opset_imports.push(OpsetImport { domain: domain.to_owned(), version }),
        }
    }
}
