//! What the tests of the operators share: random tensors, running a definition, comparing.

use planish_cpu::ThreadPool;
use planish_ir::{Attribute, DataType, Dim, Graph, Node, Tensor, ValueId, ValueType};

use super::cuda_testing;
use crate::buffers::BufferPool;
use crate::infer::Facts;
use crate::op::OpNode;
use crate::{CpuContext, Fact, GradNode, GradScope, ops};

/// A reproducible sequence of pseudo-random numbers.
pub(in crate::ops) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// 32 random bits (splitmix64).
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Uniform in −1..1.
    pub fn unit(&mut self) -> f32 {
        self.bits() as f32 / u32::MAX as f32 * 2.0 - 1.0
    }

    /// An integer in `low..=high`.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        low + i64::from(self.bits()) % (high - low + 1)
    }

    /// A tensor of uniform numbers in −1..1.
    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        Tensor::from_vec(shape, (0..n).map(|_| self.unit()).collect())
    }

    /// An INT8 tensor of codes in `low..=high`.
    pub fn codes(&mut self, shape: &[usize], low: i64, high: i64) -> Tensor {
        let n = shape.iter().product();
        Tensor::from_vec(shape, (0..n).map(|_| self.int(low, high) as i8).collect())
    }

    /// An INT4 tensor.
    pub fn int4(&mut self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let codes: Vec<i8> = (0..n).map(|_| self.int(-8, 7) as i8).collect();
        Tensor::from_int4_codes(shape, &codes)
    }
}

/// A node with its operator set version, for tests.
pub(in crate::ops) struct Case {
    pub node: Node,
    pub opset: i64,
}

impl Case {
    /// `op_type` of `domain` with one output.
    pub fn new(domain: &str, op_type: &str, opset: i64) -> Self {
        Self { node: Node::new(op_type, Vec::new()).with_domain(domain), opset }.outputs(1)
    }

    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Self {
        self.node.attributes.insert(name.into(), value.into());
        self
    }

    /// With `n` outputs, all wanted.
    pub fn outputs(mut self, n: usize) -> Self {
        let mut graph = Graph::new("case");
        let outputs = (0..n).map(|_| Some(graph.new_value("y", ValueType::Unknown)));
        self.node.outputs = outputs.collect();
        self
    }

    pub fn view(&self) -> OpNode<'_> {
        OpNode { node: &self.node, opset: self.opset }
    }

    pub fn op(&self) -> &'static crate::OpDef {
        ops::find(&self.node.domain, &self.node.op_type).expect("a listed operator")
    }

    /// Runs the reference evaluation; checks the inferred types and shapes, and the CUDA form,
    /// against it.
    pub fn eval(&self, inputs: &[Option<Tensor>]) -> Vec<Tensor> {
        let outputs = (self.op().eval)(&self.view(), inputs).expect("an evaluation");
        let facts: Vec<Fact> = inputs
            .iter()
            .map(|t| t.as_ref().map_or_else(Fact::absent, Fact::of_constant))
            .collect();
        let inferred = (self.op().infer)(&self.view(), &facts).expect("an inference");
        for (fact, tensor) in inferred.iter().zip(&outputs) {
            let shape: Vec<Dim> = tensor.shape().iter().map(|d| Dim::from(*d)).collect();
            assert_eq!(fact.dtype, Some(tensor.dtype()), "{}", self.node.op_type);
            assert_eq!(fact.shape.as_ref(), Some(&shape), "{}", self.node.op_type);
        }
        cuda_testing::check(self, inputs, &outputs);
        outputs
    }

    /// Runs the fast form; the inputs at `constants` are given when it is made and, if it keeps
    /// them, not again.
    pub fn run_cpu(&self, inputs: &[Option<Tensor>], constants: &[usize]) -> Vec<Tensor> {
        self.try_cpu(inputs, constants).expect("a node with a fast form")
    }

    /// As [`Case::run_cpu`], `None` if the node has no fast form.
    pub fn try_cpu(&self, inputs: &[Option<Tensor>], constants: &[usize]) -> Option<Vec<Tensor>> {
        let pool = ThreadPool::new(2);
        let (buffers, mut caches) = (BufferPool::new(), Vec::new());
        let mut context = CpuContext::new(&pool, &buffers, &mut caches);
        self.run_cpu_in(&mut context, inputs, constants)
    }

    /// As [`Case::try_cpu`], with the caches of `context`.
    pub fn run_cpu_in(
        &self,
        context: &mut CpuContext,
        inputs: &[Option<Tensor>],
        constants: &[usize],
    ) -> Option<Vec<Tensor>> {
        let is_constant = |i: &usize| constants.contains(i);
        let given: Vec<Option<Tensor>> =
            (0..inputs.len()).map(|i| inputs[i].clone().filter(|_| is_constant(&i))).collect();
        let kernel = (self.op().cpu?)(&self.view(), &given).expect("a kernel")?;
        let rest: Vec<Option<&Tensor>> = (0..inputs.len())
            .map(|i| inputs[i].as_ref().filter(|_| !kernel.owns_input(i)))
            .collect();
        Some(kernel.run(context, &rest).expect("a run"))
    }

    /// Fails unless the fast form gives what the evaluation gives: floats within `tolerance`,
    /// codes exactly or, with a tolerance, but for one in 200, which may be a neighbour.
    pub fn assert_kernel_agrees(
        &self,
        inputs: &[Option<Tensor>],
        constants: &[usize],
        tolerance: f32,
    ) {
        let (expected, actual) = (self.eval(inputs), self.run_cpu(inputs, constants));
        assert_eq!(expected.len(), actual.len());
        for (actual, expected) in actual.iter().zip(&expected) {
            assert_same(actual, expected, tolerance);
        }
    }

    /// Applies the gradient rule to the node with inputs of these facts, all gradients wanted.
    /// Returns the graph that it was given, whose inputs are those of the node and then the
    /// gradients of its outputs, and what the rule returned.
    pub fn differentiate(&self, facts: &[Fact]) -> (Graph, Vec<Option<ValueId>>) {
        let (mut graph, mut known) = (Graph::new("case"), Facts::default());
        let mut given = |graph: &mut Graph, fact: &Fact| {
            let value = graph.new_value("x", ValueType::Unknown);
            graph.inputs.push(value);
            known.set(value, fact.clone());
            Some(value)
        };
        let inputs = facts.iter().map(|fact| given(&mut graph, fact)).collect();
        let of_outputs: Vec<_> =
            self.infer(facts).unwrap().iter().map(|fact| given(&mut graph, fact)).collect();
        let mut node = Node { inputs, outputs: Vec::new(), ..self.node.clone() };
        let n_outputs = of_outputs.len();
        node.outputs = graph.add_op_n("y", node.clone(), n_outputs).into_iter().map(Some).collect();
        let op = OpNode { node: &node, opset: self.opset };
        let wanted = vec![true; facts.len()];
        let grad = GradNode { op, outputs: &of_outputs, wanted: &wanted };
        let rule = self.op().grad.expect("a gradient rule");
        let gradients = rule(&mut GradScope::new(&mut graph, &mut known, &|_| 1), &grad).unwrap();
        (graph, gradients)
    }

    /// What the inference says of inputs with these facts.
    pub fn infer(&self, facts: &[Fact]) -> Result<Vec<Fact>, crate::OpError> {
        (self.op().infer)(&self.view(), facts)
    }
}

/// All inputs present.
pub(in crate::ops) fn present(tensors: &[&Tensor]) -> Vec<Option<Tensor>> {
    tensors.iter().map(|t| Some((*t).clone())).collect()
}

/// A fact with the sizes written in `shape`.
pub(in crate::ops) fn fact(shape: &[&str]) -> Fact {
    let shape = shape.iter().map(|s| Dim::parse(s)).collect();
    Fact::new(Some(planish_ir::DataType::F32), Some(shape))
}

/// As [`Case::assert_kernel_agrees`], for one output.
pub(in crate::ops) fn assert_same(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.dtype(), expected.dtype());
    if actual.dtype() != DataType::I8 {
        return assert_close(actual, expected, tolerance);
    }
    assert_eq!(actual.shape(), expected.shape());
    let (a, e) = (actual.to_i64_vec().unwrap(), expected.to_i64_vec().unwrap());
    let n_off = a.iter().zip(&e).filter(|(a, e)| a != e).count();
    assert!(a.iter().zip(&e).all(|(a, e)| (a - e).abs() <= 1), "codes are further than 1 apart");
    let allowed = if tolerance > 0.0 { a.len().div_ceil(200) } else { 0 };
    assert!(n_off <= allowed, "{n_off} of {} codes differ", a.len());
}

/// Fails unless both have the same shape and differ by at most `tolerance` of the largest
/// element (or 1).
pub(in crate::ops) fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.shape(), expected.shape());
    let (a, e) = (actual.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    let size = e.iter().fold(1.0f32, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
    for (i, (a, e)) in a.iter().zip(&e).enumerate() {
        let same = a == e || (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * size;
        assert!(same, "element {i}: {a}, expected {e}");
    }
}
