//! Adding nodes and parameters to a block's graph.

use planish_ir::{DataType, Dim, Graph, Node, Tensor, ValueId, ValueType};

use super::{GradualMask, Parameter, ParameterId, ParameterKind};

/// The graph of a student in the making.
pub(super) struct Builder<'a> {
    pub graph: &'a mut Graph,
    pub parameters: Vec<Parameter>,
    /// Masks of matrices and their graph inputs, which stand before the parameters.
    masks: Vec<(GradualMask, ValueId)>,
    /// Graph inputs before the first parameter.
    n_first: usize,
}

impl<'a> Builder<'a> {
    pub fn new(graph: &'a mut Graph) -> Self {
        let n_first = graph.inputs.len();
        Self { graph, parameters: Vec::new(), masks: Vec::new(), n_first }
    }

    /// A new parameter: its id and the graph input.
    pub fn parameter(
        &mut self,
        hint: &str,
        kind: ParameterKind,
        initial: Tensor,
    ) -> (ParameterId, ValueId) {
        let shape = initial.shape().iter().map(|n| Dim::from(*n)).collect();
        let value = self.graph.new_value(hint, ValueType::tensor(DataType::F32, shape));
        self.graph.inputs.push(value);
        let name = self.graph.value(value).name.clone();
        let id = ParameterId(self.parameters.len());
        self.parameters.push(Parameter { name, kind, initial });
        (id, value)
    }

    /// The graph input of a parameter.
    pub fn input_of(&self, id: ParameterId) -> ValueId {
        self.graph.inputs[self.n_first + id.0]
    }

    /// The graph input that masks matrices of `n` rows.
    pub fn mask(&mut self, n: usize) -> ValueId {
        if let Some((_, value)) = self.masks.iter().find(|(mask, _)| mask.n == n) {
            return *value;
        }
        let ty = ValueType::tensor(DataType::F32, vec![Dim::from(n); 2]);
        let value = self.graph.new_value(&format!("gradual_mask_{n}"), ty);
        self.graph.inputs.insert(self.n_first, value);
        self.n_first += 1;
        self.masks.push((GradualMask { name: self.graph.value(value).name.clone(), n }, value));
        value
    }

    /// The masks that were asked for.
    pub fn finish(self) -> (Vec<Parameter>, Vec<GradualMask>) {
        (self.parameters, self.masks.into_iter().map(|(mask, _)| mask).collect())
    }

    /// Adds a node with one output.
    pub fn node(&mut self, hint: &str, node: Node) -> ValueId {
        self.graph.add_op(hint, node)
    }

    /// Adds `op_type` of ONNX's domain without attributes.
    pub fn op(&mut self, op_type: &str, inputs: &[ValueId]) -> ValueId {
        let node = Node::new(op_type, inputs.iter().copied().map(Some).collect());
        self.graph.add_op(&format!("student_{}", op_type.to_lowercase()), node)
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant("student_constant", tensor)
    }

    /// `x` reshaped.
    pub fn reshape(&mut self, x: ValueId, shape: &[i64]) -> ValueId {
        let shape = self.constant(Tensor::from_vec(&[shape.len()], shape.to_vec()));
        self.op("Reshape", &[x, shape])
    }

    /// The transpose of a matrix.
    pub fn transpose(&mut self, x: ValueId) -> ValueId {
        let node = Node::new("Transpose", vec![Some(x)]).with("perm", vec![1i64, 0]);
        self.node("student_transpose", node)
    }

    /// The inverse of a matrix.
    pub fn inverse(&mut self, x: ValueId) -> ValueId {
        let node = Node::new("Inverse", vec![Some(x)]).with_domain(planish_kernels::MICROSOFT);
        self.node("student_inverse", node)
    }

    /// Applies `change` to the columns `first .. first + len` of the last axis, `n` wide.
    pub fn on_columns(
        &mut self,
        x: ValueId,
        n: usize,
        columns: std::ops::Range<usize>,
        change: impl FnOnce(&mut Self, ValueId) -> ValueId,
    ) -> ValueId {
        if columns == (0..n) {
            return change(self, x);
        }
        let bounds = [0, columns.start, columns.end, n];
        let sizes: Vec<i64> = bounds.windows(2).map(|w| (w[1] - w[0]) as i64).collect();
        let present: Vec<i64> = sizes.iter().copied().filter(|n| *n > 0).collect();
        let split = self.constant(Tensor::from_vec(&[present.len()], present.clone()));
        let node = Node::new("Split", vec![Some(x), Some(split)]).with("axis", -1i64);
        let mut parts = self.graph.add_op_n("student_split", node, present.len());
        let changed = usize::from(sizes[0] > 0);
        parts[changed] = change(self, parts[changed]);
        let inputs = parts.into_iter().map(Some).collect();
        self.node("student_concat", Node::new("Concat", inputs).with("axis", -1i64))
    }
}
