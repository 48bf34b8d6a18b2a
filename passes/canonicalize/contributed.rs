//! ONNX Runtime's fused operators, in which a model comes that it optimised and saved.

use planish_ir::{Graph, Model, Node, NodeId, ValueId};
use planish_kernels::MICROSOFT;
use planish_kernels::infer::Facts;

use crate::half::to_type;
use crate::pass::{PassContext, PassError};

/// Activations that `FusedGemm` ends with and that take no numbers of their own.
const PLAIN_ACTIVATIONS: [&str; 4] = ["Relu", "Sigmoid", "Tanh", "Softsign"];
/// α of `QuickGelu` where the node names none.
const QUICK_ALPHA: f32 = 1.702;

/// Takes `FusedMatMul`, `FusedGemm`, `BiasGelu`, `FastGelu`, `QuickGelu`, `Gelu`,
/// `RotaryEmbedding` and `MultiHeadAttention` of ONNX Runtime's domain apart to ONNX's own operators.
pub(super) fn split_contributed(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    let is_contributed = |id: &NodeId| model.graph.node(*id).domain == MICROSOFT;
    let nodes: Vec<NodeId> = model.graph.node_ids().filter(is_contributed).collect();
    if nodes.is_empty() {
        return Ok(0);
    }
    let facts = context.infer(model)?;
    let mut splitter = Splitter { graph: &mut model.graph, facts: &facts };
    let mut n_rewrites = 0;
    for id in nodes {
        match splitter.split(id) {
            Ok(true) => n_rewrites += 1,
            Ok(false) => {}
            Err(reason) => {
                context.note(format!("{}: {reason}", splitter.graph.node(id).describe()));
            }
        }
    }
    model.graph.remove_dead();
    Ok(n_rewrites)
}

pub(super) struct Splitter<'a> {
    pub graph: &'a mut Graph,
    pub facts: &'a Facts,
}

impl Splitter<'_> {
    /// Whether the node was taken apart.
    fn split(&mut self, id: NodeId) -> Result<bool, String> {
        let node = self.graph.node(id).clone();
        let last = match node.op_type.as_str() {
            "FusedMatMul" => self.product(&node)?,
            "FusedGemm" => self.gemm(&node)?,
            "BiasGelu" | "Gelu" => Node::new("Gelu", vec![Some(self.biased(&node)?)]),
            "FastGelu" => {
                Node::new("Gelu", vec![Some(self.biased(&node)?)]).with("approximate", "tanh")
            }
            "QuickGelu" => {
                let alpha = node.float("alpha", QUICK_ALPHA);
                Node::new("Swish", vec![Some(self.biased(&node)?)]).with("alpha", alpha)
            }
            "RotaryEmbedding" => self.rotary(&node)?,
            "MultiHeadAttention" => self.multi_head(&node)?,
            _ => return Ok(false),
        };
        let last = last.with_name(node.name).with_outputs(node.outputs);
        self.graph.replace_node(id, last).map_err(|error| error.to_string())?;
        Ok(true)
    }

    /// α · A · B, either factor transposed.
    fn product(&mut self, node: &Node) -> Result<Node, String> {
        if node.int("transBatchA", 0) != 0 || node.int("transBatchB", 0) != 0 {
            return Err("it moves an axis of its batch".into());
        }
        let a = self.turned(node, 0, "transA")?;
        let b = self.turned(node, 1, "transB")?;
        let product = Node::new("MatMul", vec![Some(a), Some(b)]);
        let alpha = node.float("alpha", 1.0);
        if alpha == 1.0 {
            return Ok(product);
        }
        let alpha = self.number(node, alpha)?;
        let product = self.graph.add_op(&self.hint(node), product);
        Ok(Node::new("Mul", vec![Some(product), Some(alpha)]))
    }

    /// An input of a product, its last two axes swapped where the attribute says so.
    fn turned(&mut self, node: &Node, index: usize, attribute: &str) -> Result<ValueId, String> {
        let factor = node.input(index).ok_or("an input is absent")?;
        if node.int(attribute, 0) == 0 {
            return Ok(factor);
        }
        let rank = self.facts.get(factor).rank().ok_or("the rank of a factor is unknown")?;
        if rank < 2 {
            return Ok(factor);
        }
        let mut axes: Vec<i64> = (0..rank as i64).collect();
        axes.swap(rank - 2, rank - 1);
        let hint = format!("{}_turned", self.graph.value(factor).name);
        Ok(self.graph.add_op(&hint, Node::new("Transpose", vec![Some(factor)]).with("perm", axes)))
    }

    /// `Gemm` and the activation behind it.
    fn gemm(&mut self, node: &Node) -> Result<Node, String> {
        let activation = node.str("activation", "").to_owned();
        if !PLAIN_ACTIVATIONS.contains(&activation.as_str()) {
            return Err(format!("its activation \"{activation}\" is not known"));
        }
        let mut gemm = Node::new("Gemm", node.inputs.clone());
        if !node.name.is_empty() {
            gemm.name = format!("{}/product", node.name);
        }
        for name in ["alpha", "beta", "transA", "transB"] {
            if let Some(value) = node.attributes.get(name) {
                gemm.attributes.insert(name.into(), value.clone());
            }
        }
        let sum = self.graph.add_op(&self.hint(node), gemm);
        Ok(Node::new(activation, vec![Some(sum)]))
    }

    /// ONNX's rotary embedding, on the rows of the tables that the positions look up.
    fn rotary(&mut self, node: &Node) -> Result<Node, String> {
        let inputs: Option<Vec<ValueId>> = (0..4).map(|index| node.input(index)).collect();
        let [x, ids, cos, sin] = inputs.ok_or("an input is absent")?[..] else {
            return Err("an input is absent".into());
        };
        if node.int("is_packed_batching", 0) != 0 || node.float("scale", 1.0) != 1.0 {
            return Err("it is scaled, or its batch is packed".into());
        }
        let size = |value, axis| self.facts.get(value).dim(axis).and_then(|dim| dim.as_const());
        let same_batch = self.facts.get(ids).dim(0) == self.facts.get(x).dim(0);
        if self.facts.get(ids).rank() != Some(2) || !same_batch {
            return Err("it has no position for each token".into());
        }
        let heads = match (node.int("num_heads", 0), self.facts.get(x).rank()) {
            (0, Some(4)) => size(x, 1),
            (0, _) => {
                let sizes = size(x, -1).zip(size(cos, -1));
                sizes.map(|(width, half)| width / half.saturating_mul(2).max(1))
            }
            (heads, _) => Some(heads),
        };
        let heads = heads.ok_or("the number of its heads is not known")?;
        let [cos, sin] = [cos, sin].map(|table| {
            let hint = format!("{}/rows", self.graph.value(table).name);
            let rows = Node::new("Gather", vec![Some(table), Some(ids)]).with("axis", 0i64);
            Some(self.graph.add_op(&hint, rows))
        });
        Ok(Node::new("RotaryEmbedding", vec![Some(x), cos, sin])
            .with("interleaved", node.int("interleaved", 0))
            .with("rotary_embedding_dim", node.int("rotary_embedding_dim", 0))
            .with("num_heads", heads))
    }

    /// The first input, plus the second if there is one.
    fn biased(&mut self, node: &Node) -> Result<ValueId, String> {
        let x = node.input(0).ok_or("an input is absent")?;
        let Some(bias) = node.input(1) else { return Ok(x) };
        let sum = Node::new("Add", vec![Some(x), Some(bias)]);
        Ok(self.graph.add_op(&self.hint(node), sum))
    }

    /// A constant of the type that the node computes in.
    fn number(&mut self, node: &Node, value: f32) -> Result<ValueId, String> {
        let dtype = node.input(0).and_then(|v| self.facts.get(v).dtype);
        let dtype = dtype.ok_or("the type of a factor is unknown")?;
        let tensor = to_type(dtype, &[], vec![value]);
        Ok(self.graph.add_constant("alpha", tensor))
    }

    /// A name for a value within what the node becomes.
    pub fn hint(&self, node: &Node) -> String {
        let output = node.output(0).map(|v| self.graph.value(v).name.clone());
        format!("{}/part", output.unwrap_or_default())
    }
}
