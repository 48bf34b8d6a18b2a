//! Gradient rules: how an operator's definition says what its derivative is.
//!
//! A rule emits ordinary nodes. From the gradients of a node's outputs (of some scalar loss) it
//! computes those of its inputs, so that the backward pass is a graph like any other: it runs on
//! every engine and can be written to a file.

use planish_ir::{Graph, Node, Tensor, ValueId};

use crate::infer::{Facts, infer_node};
use crate::{Fact, MICROSOFT, OpError, OpNode};

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

    /// Whether the gradient of the input at `index` is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
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

    /// `value` as `[rows, last]`, all axes but the last in one.
    ///
    /// # Errors
    /// If the last size is not a known number.
    pub fn as_rows(&mut self, value: ValueId) -> Result<ValueId, OpError> {
        let name = || self.graph.value(value).name.clone();
        let unknown = || OpError::unsupported(format!("the last size of \"{}\" varies", name()));
        let last = self.facts.get(value).dim(-1).and_then(|d| d.as_const()).ok_or_else(unknown)?;
        if self.facts.shape(value).map(<[_]>::len) == Some(2) {
            return Ok(value);
        }
        let shape = self.ints(&[-1, last]);
        self.op("Reshape", &[value, shape])
    }

    /// `value` in the shape of `like`, which has as many elements.
    ///
    /// # Errors
    /// If the shapes contradict each other.
    pub fn reshape_like(&mut self, value: ValueId, like: ValueId) -> Result<ValueId, OpError> {
        let constant: Option<Vec<i64>> =
            self.facts.shape(like).and_then(|s| s.iter().map(|d| d.as_const()).collect());
        let shape = match constant {
            Some(sizes) => self.ints(&sizes),
            None => self.op("Shape", &[like])?,
        };
        self.op("Reshape", &[value, shape])
    }

    /// The gradient of an input that was broadcast: `value` summed over the axes that `like`
    /// lacks or has only one element in, in the shape of `like`.
    ///
    /// # Errors
    /// If a rank is not known.
    pub fn reduce_to(&mut self, value: ValueId, like: ValueId) -> Result<ValueId, OpError> {
        let (rank, wanted) = (self.rank(value)?, self.rank(like)?);
        let (from, to) = (self.facts.get(value), self.facts.get(like));
        let missing = rank - wanted;
        let is_one = |axis: i64, fact: &Fact| fact.dim(axis).and_then(|d| d.as_const()) == Some(1);
        let spread = |i: &usize| {
            *i < missing || is_one((i - missing) as i64, &to) && !is_one(*i as i64, &from)
        };
        let axes: Vec<i64> = (0..rank).filter(spread).map(|i| i as i64).collect();
        if axes.is_empty() {
            return Ok(value);
        }
        let axes = self.ints(&axes);
        let node = Node::new("ReduceSum", vec![Some(value), Some(axes)]);
        let sum = self.node("grad_sum", node.with("keepdims", i64::from(missing == 0)))?;
        if missing == 0 { Ok(sum) } else { self.reshape_like(sum, like) }
    }
}
