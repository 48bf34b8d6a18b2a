//! Building a random graph: values so far, their shapes, and one piece after another.

use planish_ir::{DataType, Dim, Graph, Model, Node, Tensor, ValueId, ValueType};
use planish_kernels::infer::{Facts, infer_node};
use planish_passes::transform::Random;

use crate::pieces;

/// Operator set that graphs are written in: the last one before norms and attention came.
pub const OPSET: i64 = 21;
/// Channels of the inputs.
const CHANNELS: i64 = 8;
/// Rows of the embedding.
const N_ROWS: usize = 8;

/// A graph in the making.
pub struct Builder {
    pub graph: Graph,
    pub random: Random,
    facts: Facts,
    /// The input with the positions of the tokens, `[B, S]`.
    pub positions: ValueId,
    /// Floats that the next piece may read.
    pub pool: Vec<ValueId>,
}

/// A model of up to `n_pieces` pieces; equal seeds give equal models.
pub fn random_model(seed: u64, n_pieces: usize) -> Model {
    let mut builder = Builder::new(seed);
    for _ in 0..n_pieces {
        let x = builder.any();
        let piece = pieces::ALL[builder.below(pieces::ALL.len())];
        if let Some(y) = piece(&mut builder, x) {
            builder.pool.push(y);
        }
    }
    builder.finish()
}

impl Builder {
    fn new(seed: u64) -> Self {
        let (b, s, t) = (Dim::symbol("B"), Dim::symbol("S"), Dim::symbol("T"));
        let mut graph = Graph::new("random");
        let ty = ValueType::tensor(DataType::I64, vec![b.clone(), s.clone()]);
        let positions = graph.new_value("position_ids", ty.clone());
        graph.inputs.push(positions);
        let mut facts = Facts::default();
        facts.set(positions, planish_kernels::Fact::of_type(&ty));
        let (random, pool) = (Random::new(seed), Vec::new());
        let mut builder = Self { graph, random, facts, positions, pool };
        let channels = Dim::from(CHANNELS);
        for (name, length) in [("x", &s), ("y", &s), ("z", &t)] {
            let shape = vec![b.clone(), length.clone(), channels.clone()];
            let input = builder.input(name, DataType::F32, shape);
            builder.pool.push(input);
        }
        let ids = builder.input("input_ids", DataType::I64, vec![b, s]);
        let table = builder.weight("embedding", &[N_ROWS, CHANNELS as usize], 1.0);
        let embedded = builder.op("Gather", &[table, ids]);
        builder.pool.push(embedded);
        builder
    }

    /// The graph, with the last values of the pool as outputs.
    fn finish(mut self) -> Model {
        let n = 1 + self.below(3);
        for (i, value) in self.pool.iter().rev().take(n).copied().enumerate() {
            // An input can't be an output as well: it would have two names.
            if self.graph.is_input(value) || self.graph.is_output(value) {
                continue;
            }
            self.graph.rename_value(value, &format!("out_{i}")).unwrap();
            self.graph.outputs.push(value);
        }
        if self.graph.outputs.is_empty() {
            let x = self.pool[0];
            let y = self.op("Neg", &[x]);
            self.graph.outputs.push(y);
        }
        self.graph.remove_dead();
        for output in self.graph.outputs.clone() {
            self.graph.value_mut(output).ty = self.facts.get(output).to_type();
            self.graph.value_mut(output).declared = true;
        }
        let mut model = Model { ir_version: 10, graph: self.graph, ..Model::default() };
        model.set_opset("", OPSET);
        planish_ir::verify(&model).unwrap();
        model
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.random.bits() % n.max(1) as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A value of the pool; late ones more often, so that graphs become deep.
    pub fn any(&mut self) -> ValueId {
        let recent = self.pool.len().min(3);
        let from = if self.below(3) == 0 { 0 } else { self.pool.len() - recent };
        let index = from + self.below(self.pool.len() - from);
        self.pool[index]
    }

    /// Another value of the pool of the same shape, or the same value.
    pub fn like(&mut self, x: ValueId) -> ValueId {
        let shape = self.shape(x);
        let same: Vec<ValueId> =
            self.pool.iter().copied().filter(|v| self.shape(*v) == shape).collect();
        if same.is_empty() { x } else { self.pick(&same) }
    }

    fn input(&mut self, name: &str, dtype: DataType, shape: Vec<Dim>) -> ValueId {
        let ty = ValueType::tensor(dtype, shape);
        let id = self.graph.new_value(name, ty.clone());
        self.graph.value_mut(id).declared = true;
        self.facts.set(id, planish_kernels::Fact::of_type(&ty));
        self.graph.inputs.push(id);
        id
    }

    /// A constant.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let fact = planish_kernels::Fact::of_constant(&tensor);
        let id = self.graph.add_constant(name, tensor);
        self.facts.set(id, fact);
        id
    }

    /// Normally distributed around 0.
    pub fn weight(&mut self, name: &str, shape: &[usize], deviation: f64) -> ValueId {
        let n = shape.iter().product();
        let data: Vec<f32> = (0..n).map(|_| (self.random.normal() * deviation) as f32).collect();
        self.constant(name, Tensor::from_vec(shape, data))
    }

    /// A number: of rank 0, or of one element, or from a node.
    pub fn number(&mut self, x: f32) -> ValueId {
        if self.below(3) == 0 {
            return self.node("Constant", &[], |node| node.with("value_float", x));
        }
        let shape: &[usize] = if self.below(2) == 0 { &[] } else { &[1] };
        self.constant("number", Tensor::from_vec(shape, vec![x]))
    }

    /// A list of integers.
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant("ints", Tensor::from_vec(&[values.len()], values.to_vec()))
    }

    pub fn op(&mut self, op_type: &str, inputs: &[ValueId]) -> ValueId {
        self.node(op_type, inputs, |node| node)
    }

    /// An operator with attributes and one output.
    pub fn node(
        &mut self,
        op_type: &str,
        inputs: &[ValueId],
        attributes: impl FnOnce(Node) -> Node,
    ) -> ValueId {
        self.nodes(op_type, inputs, 1, attributes)[0]
    }

    /// An operator with several outputs.
    pub fn nodes(
        &mut self,
        op_type: &str,
        inputs: &[ValueId],
        n_outputs: usize,
        attributes: impl FnOnce(Node) -> Node,
    ) -> Vec<ValueId> {
        let inputs = inputs.iter().copied().map(Some).collect();
        let node = attributes(Node::new(op_type, inputs));
        let outputs = self.graph.add_op_n(&op_type.to_lowercase(), node, n_outputs);
        let (id, _) = self.graph.producer(outputs[0]).unwrap();
        infer_node(&self.graph, id, &|_| OPSET, &mut self.facts).unwrap();
        outputs
    }

    pub fn shape(&self, x: ValueId) -> Vec<Dim> {
        self.facts.shape(x).expect("every operator here tells its shape").to_vec()
    }

    pub fn rank(&self, x: ValueId) -> usize {
        self.shape(x).len()
    }

    /// The last size, if it is a number other than 0.
    pub fn channels(&self, x: ValueId) -> Option<usize> {
        self.shape(x).last()?.as_usize().filter(|n| *n > 0)
    }
}
