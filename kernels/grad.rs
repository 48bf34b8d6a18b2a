//! Gradient rules: how an operator's definition says what its derivative is.
//!
//! A rule emits ordinary nodes. From the gradients of a node's outputs (of some scalar loss) it
//! computes those of its inputs, so that the backward pass is a graph like any other: it runs on
//! every engine and can be written to a file.

use planish_ir::{Graph, Node, Tensor, ValueId};

use crate::infer::{Facts, infer_node};
use crate::{Fact, MICROSOFT, OpError, OpNode};

mod shapes;

/// Emits the nodes that compute the gradients of a node's inputs; one entry for each input,
/// `None` where nothing flows (integers, shapes) or where it is not wanted.
pub type GradFn = fn(&mut GradScope, &GradNode) -> Result<Vec<Option<ValueId>>, OpError>;

/// The node to differentiate.
pub struct GradNode<'a> {
    /// The node of the forward graph.
    pub op: OpNode<'a>,
    /// The gradient of each output, of its shape; `None` where the loss does not depend on it.
    pub outputs: &'a [Option<ValueId>],
    /// For each input whether its gradient is wanted.
    pub wanted: &'a [bool],
}

impl GradNode<'_> {
    /// The input at `index` of the forward node.
    ///
    /// # Errors
    /// If it is absent.
    pub fn input(&self, index: usize) -> Result<ValueId, OpError> {
        self.op.node.input(index).ok_or(OpError::MissingInput(index))
    }

    /// The output at `index` of the forward node.
    ///
    /// # Errors
    /// If it is absent.
    pub fn output(&self, index: usize) -> Result<ValueId, OpError> {
        let missing = || OpError::unsupported(format!("output {index} is absent"));
        self.op.node.output(index).ok_or_else(missing)
    }

    /// The gradient of the output at `index`, if the loss depends on it.
    pub fn of_output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }

    /// The gradient of the first output.
    ///
    /// # Errors
    /// If the loss does not depend on it.
    pub fn gradient(&self) -> Result<ValueId, OpError> {
        let missing = || OpError::unsupported("no gradient reaches its first output");
        self.of_output(0).ok_or_else(missing)
    }

    /// Whether the gradient of the input at `index` is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }

    /// The gradients of the inputs: `rule` for those that are wanted.
    ///
    /// # Errors
    /// Those of `rule`.
    pub fn each(
        &self,
        mut rule: impl FnMut(usize) -> Result<ValueId, OpError>,
    ) -> Result<Vec<Option<ValueId>>, OpError> {
        let n = self.op.node.inputs.len();
        (0..n).map(|i| self.wants(i).then(|| rule(i)).transpose()).collect()
    }

    /// As [`GradNode::each`], where nothing but the first input has a gradient.
    ///
    /// # Errors
    /// Those of `rule`, or if the gradient of another input is wanted.
    pub fn first(
        &self,
        rule: impl FnOnce() -> Result<ValueId, OpError>,
    ) -> Result<Vec<Option<ValueId>>, OpError> {
        if let Some(other) = (1..self.op.node.inputs.len()).find(|i| self.wants(*i)) {
            return Err(OpError::unsupported(format!("input {other} has no gradient rule")));
        }
        let mut gradients = self.nothing();
        if self.wants(0) {
            gradients[0] = Some(rule()?);
        }
        Ok(gradients)
    }

    /// No gradients: one `None` for each input.
    pub fn nothing(&self) -> Vec<Option<ValueId>> {
        vec![None; self.op.node.inputs.len()]
    }
}

/// The graph that rules add nodes to, with the facts of its values kept up to date.
pub struct GradScope<'a> {
    graph: &'a mut Graph,
    facts: &'a mut Facts,
    opset: &'a dyn Fn(&str) -> i64,
}

impl<'a> GradScope<'a> {
    /// A scope over `graph`, whose values `facts` knows, under the operator set versions that
    /// `opset` gives.
    pub fn new(graph: &'a mut Graph, facts: &'a mut Facts, opset: &'a dyn Fn(&str) -> i64) -> Self {
        Self { graph, facts, opset }
    }

    /// The graph as it stands.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// What is known of a value.
    pub fn fact(&self, value: ValueId) -> Fact {
        self.facts.get(value)
    }

    /// The rank of a value.
    ///
    /// # Errors
    /// If it is not known.
    pub fn rank(&self, value: ValueId) -> Result<usize, OpError> {
        let name = || self.graph.value(value).name.clone();
        let unknown = || OpError::unsupported(format!("the rank of \"{}\" is unknown", name()));
        self.facts.shape(value).map(<[_]>::len).ok_or_else(unknown)
    }

    /// Adds a node with one output.
    ///
    /// # Errors
    /// If its inputs contradict each other.
    pub fn node(&mut self, hint: &str, node: Node) -> Result<ValueId, OpError> {
        Ok(self.node_n(hint, node, 1)?[0])
    }

    /// Adds a node with `n` outputs.
    ///
    /// # Errors
    /// If its inputs contradict each other.
    pub fn node_n(&mut self, hint: &str, node: Node, n: usize) -> Result<Vec<ValueId>, OpError> {
        let outputs = self.graph.add_op_n(hint, node, n);
        if let Some((id, _)) = outputs.first().and_then(|v| self.graph.producer(*v)) {
            infer_node(self.graph, id, self.opset, self.facts).map_err(|e| e.error)?;
        }
        Ok(outputs)
    }

    /// Adds `op_type` of ONNX's own domain without attributes.
    ///
    /// # Errors
    /// If its inputs contradict each other.
    pub fn op(&mut self, op_type: &str, inputs: &[ValueId]) -> Result<ValueId, OpError> {
        let inputs = inputs.iter().copied().map(Some).collect();
        self.node(&format!("grad_{}", op_type.to_lowercase()), Node::new(op_type, inputs))
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let fact = Fact::of_constant(&tensor);
        let value = self.graph.add_constant("grad_constant", tensor);
        self.facts.set(value, fact);
        value
    }

    /// A constant list of integers: axes, a shape.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::from_vec(&[values.len()], values.to_vec()))
    }

    /// a · b of the last two axes (one of both may have rank 2 where the other has more), either
    /// transposed first: `com.microsoft::FusedMatMul`.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn matmul(
        &mut self,
        (a, trans_a): (ValueId, bool),
        (b, trans_b): (ValueId, bool),
    ) -> Result<ValueId, OpError> {
        let node = Node::new("FusedMatMul", vec![Some(a), Some(b)]).with_domain(MICROSOFT);
        let node = node.with("transA", i64::from(trans_a)).with("transB", i64::from(trans_b));
        self.node("grad_matmul", node)
    }
}
