//! A tiny decoder, built in code.

use planish_ir::{DataType, Dim, Graph, Model, Node, Tensor, ValueId, ValueType};

use crate::transform::Random;

/// Kind of the norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Norm {
    Rms,
    Layer,
}

/// Kind of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mlp {
    SwiGlu,
    /// Without gate.
    Gelu,
}

/// What the decoder is made of; the default is a Llama.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TinyDecoder {
    pub(crate) hidden: usize,
    pub(crate) q_heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) ffn: usize,
    pub(crate) vocabulary: usize,
    pub(crate) n_blocks: usize,
    pub(crate) tied: bool,
    pub(crate) bias: bool,
    pub(crate) fused: bool,
    pub(crate) rotary: bool,
    pub(crate) norm: Norm,
    pub(crate) mlp: Mlp,
}

impl Default for TinyDecoder {
    fn default() -> Self {
        Self {
            hidden: 48,
            q_heads: 4,
            kv_heads: 2,
            head_size: 12,
            ffn: 80,
            vocabulary: 64,
            n_blocks: 2,
            tied: true,
            bias: false,
            fused: false,
            rotary: true,
            norm: Norm::Rms,
            mlp: Mlp::SwiGlu,
        }
    }
}

/// Most positions that the rotary tables and the learned positions have.
const MAX_POSITIONS: usize = 32;

impl TinyDecoder {
    /// A GPT-2: LayerNorm, learned positions, biases, fused projections, no gate.
    pub(crate) fn gpt2() -> Self {
        let (norm, mlp) = (Norm::Layer, Mlp::Gelu);
        let default = Self::default();
        Self { bias: true, fused: true, rotary: false, norm, mlp, kv_heads: 4, ..default }
    }

    /// The model with random weights. Inputs: `input_ids` and `position_ids` `[B, S]`, then
    /// `past.{i}.key` and `past.{i}.value`; outputs: `logits`, then `present.{i}.key` and
    /// `present.{i}.value`.
    pub(crate) fn build(&self, seed: u64) -> Model {
        let builder =
            Builder { sizes: *self, graph: Graph::new("tiny"), random: Random::new(seed) };
        let mut model = Model { ir_version: 10, graph: builder.build(), ..Model::default() };
        model.set_opset("", 23);
        planish_ir::verify(&model).expect("a sound graph");
        model
    }
}

struct Builder {
    sizes: TinyDecoder,
    graph: Graph,
    random: Random,
}

impl Builder {
    fn build(mut self) -> Graph {
        let sizes = self.sizes;
        let ids = self.input("input_ids", DataType::I64, &["batch", "sequence"]);
        let positions = self.input("position_ids", DataType::I64, &["batch", "sequence"]);
        let table = self.random_constant("embed", &[sizes.vocabulary, sizes.hidden], 1.0);
        let mut x = self.op("hidden", "Gather", &[table, ids]);
        let rotary = self.rotary_tables(positions);
        if rotary.is_none() {
            let table = self.random_constant("positions", &[MAX_POSITIONS, sizes.hidden], 0.3);
            let learned = self.op("position", "Gather", &[table, positions]);
            x = self.op("hidden", "Add", &[x, learned]);
        }
        let mut presents = Vec::new();
        for block in 0..sizes.n_blocks {
            let (y, present) = self.attention(block, x, rotary);
            presents.extend(present);
            x = self.op("residual", "Add", &[x, y]);
            let y = self.mlp(x);
            x = self.op("residual", "Add", &[x, y]);
        }
        let x = self.norm(x);
        let logits = self.head(x, table);
        self.output("logits", logits, &["batch", "sequence", &sizes.vocabulary.to_string()]);
        let (kv_heads, size) = (sizes.kv_heads.to_string(), sizes.head_size.to_string());
        for (i, present) in presents.into_iter().enumerate() {
            let name = format!("present.{}.{}", i / 2, ["key", "value"][i % 2]);
            self.output(&name, present, &["batch", &kv_heads, "total", &size]);
        }
        self.graph
    }

    fn input(&mut self, name: &str, dtype: DataType, shape: &[&str]) -> ValueId {
        let shape = shape.iter().map(|dim| Dim::parse(dim)).collect();
        let id = self.graph.new_value(name, ValueType::tensor(dtype, shape));
        self.graph.inputs.push(id);
        id
    }

    fn output(&mut self, name: &str, value: ValueId, shape: &[&str]) {
        let shape = shape.iter().map(|dim| Dim::parse(dim)).collect();
        self.graph.rename_value(value, name).expect("a free name");
        self.graph.value_mut(value).ty = ValueType::tensor(DataType::F32, shape);
        self.graph.value_mut(value).declared = true;
        self.graph.outputs.push(value);
    }

    fn op(&mut self, name: &str, op_type: &str, inputs: &[ValueId]) -> ValueId {
        let inputs = inputs.iter().copied().map(Some).collect();
        self.graph.add_op(name, Node::new(op_type, inputs))
    }

    fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        element: impl FnMut(usize) -> f32,
    ) -> ValueId {
        let data = (0..shape.iter().product()).map(element).collect();
        self.graph.add_constant(name, Tensor::from_vec(shape, data))
    }

    /// Normally distributed.
    fn random_constant(&mut self, name: &str, shape: &[usize], deviation: f64) -> ValueId {
        let n = shape.iter().product();
        let data = (0..n).map(|_| (self.random.normal() * deviation) as f32).collect();
        self.graph.add_constant(name, Tensor::from_vec(shape, data))
    }

    /// cos and sin of the positions, `[batch, sequence, head_size / 2]`, looked up in tables.
    fn rotary_tables(&mut self, positions: ValueId) -> Option<[ValueId; 2]> {
        let half = self.sizes.head_size / 2;
        let angle = |i: usize| (i / half) as f32 / 100f32.powf((i % half) as f32 / half as f32);
        let shape = [MAX_POSITIONS, half];
        let cos = self.constant("cos_table", &shape, |i| angle(i).cos());
        let sin = self.constant("sin_table", &shape, |i| angle(i).sin());
        let tables = [cos, sin].map(|table| (table, positions));
        self.sizes.rotary.then(|| tables.map(|(t, p)| self.op("rotary", "Gather", &[t, p])))
    }

    fn norm(&mut self, x: ValueId) -> ValueId {
        let weight = self.norm_weight("norm_weight", 1.0);
        let node = match self.sizes.norm {
            Norm::Rms => Node::new("RMSNormalization", vec![Some(x), Some(weight)]),
            Norm::Layer => {
                let bias = self.norm_weight("norm_bias", 0.0);
                Node::new("LayerNormalization", vec![Some(x), Some(weight), Some(bias)])
            }
        };
        self.graph.add_op("normed", node.with("axis", -1i64).with("epsilon", 1e-5f32))
    }

    /// Around `centre`, one channel far larger than the others: outliers as real models have them.
    fn norm_weight(&mut self, name: &str, centre: f64) -> ValueId {
        let n = self.sizes.hidden;
        let mut data: Vec<f32> =
            (0..n).map(|_| (centre + 0.2 * self.random.normal()) as f32).collect();
        data[n / 3] *= 30.0;
        self.graph.add_constant(name, Tensor::from_vec(&[n], data))
    }

    fn linear(&mut self, name: &str, x: ValueId, k: usize, n: usize) -> ValueId {
        let deviation = 1.0 / (k as f64).sqrt();
        let weight = self.random_constant(&format!("{name}_weight"), &[k, n], deviation);
        let product = self.op(name, "MatMul", &[x, weight]);
        if !self.sizes.bias {
            return product;
        }
        let bias = self.random_constant(&format!("{name}_bias"), &[n], 0.1);
        self.op(&format!("{name}_biased"), "Add", &[product, bias])
    }

    /// Linear layers of the given widths on one activation: one fused layer and a split, or apart.
    fn linears(&mut self, names: &[&str], x: ValueId, k: usize, widths: &[usize]) -> Vec<ValueId> {
        if !self.sizes.fused {
            return names.iter().zip(widths).map(|(name, n)| self.linear(name, x, k, *n)).collect();
        }
        let fused = self.linear(&names.join("_"), x, k, widths.iter().sum());
        let sizes: Vec<i64> = widths.iter().map(|n| *n as i64).collect();
        let sizes = self.graph.add_constant("split", Tensor::from_vec(&[sizes.len()], sizes));
        let split = Node::new("Split", vec![Some(fused), Some(sizes)]).with("axis", -1i64);
        self.graph.add_op_n("part", split, widths.len())
    }

    fn attention(
        &mut self,
        block: usize,
        x: ValueId,
        rotary: Option<[ValueId; 2]>,
    ) -> (ValueId, [ValueId; 2]) {
        let sizes = self.sizes;
        let (n_q, n_kv) = (sizes.q_heads * sizes.head_size, sizes.kv_heads * sizes.head_size);
        let normed = self.norm(x);
        let parts = self.linears(&["q", "k", "v"], normed, sizes.hidden, &[n_q, n_kv, n_kv]);
        let q = self.rotate(parts[0], sizes.q_heads, rotary);
        let k = self.rotate(parts[1], sizes.kv_heads, rotary);
        let (kv_heads, size) = (sizes.kv_heads.to_string(), sizes.head_size.to_string());
        let shape = ["batch", &kv_heads, "past", &size];
        let past_key = self.input(&format!("past.{block}.key"), DataType::F32, &shape);
        let past_value = self.input(&format!("past.{block}.value"), DataType::F32, &shape);
        let inputs = vec![Some(q), Some(k), Some(parts[2]), None, Some(past_key), Some(past_value)];
        let node = Node::new("Attention", inputs)
            .with("q_num_heads", sizes.q_heads as i64)
            .with("kv_num_heads", sizes.kv_heads as i64)
            .with("is_causal", 1i64);
        let outputs = self.graph.add_op_n("attended", node, 3);
        let y = self.linear("o", outputs[0], n_q, sizes.hidden);
        (y, [outputs[1], outputs[2]])
    }

    fn rotate(&mut self, x: ValueId, heads: usize, rotary: Option<[ValueId; 2]>) -> ValueId {
        let Some([cos, sin]) = rotary else { return x };
        let node = Node::new("RotaryEmbedding", vec![Some(x), Some(cos), Some(sin)])
            .with("num_heads", heads as i64);
        self.graph.add_op("rotated", node)
    }

    fn mlp(&mut self, x: ValueId) -> ValueId {
        let (hidden, ffn) = (self.sizes.hidden, self.sizes.ffn);
        let normed = self.norm(x);
        let inner = match self.sizes.mlp {
            Mlp::SwiGlu => {
                let parts = self.linears(&["gate", "up"], normed, hidden, &[ffn, ffn]);
                let gate = self.op("activated", "Swish", &[parts[0]]);
                self.op("gated", "Mul", &[gate, parts[1]])
            }
            Mlp::Gelu => {
                let inner = self.linear("fc", normed, hidden, ffn);
                self.op("activated", "Gelu", &[inner])
            }
        };
        self.linear("down", inner, ffn, hidden)
    }

    fn head(&mut self, x: ValueId, table: ValueId) -> ValueId {
        let sizes = self.sizes;
        let weight = if sizes.tied {
            let node = Node::new("Transpose", vec![Some(table)]).with("perm", vec![1i64, 0]);
            self.graph.add_op("table_transposed", node)
        } else {
            self.random_constant("lm_head", &[sizes.hidden, sizes.vocabulary], 0.15)
        };
        self.op("logits_product", "MatMul", &[x, weight])
    }
}
