//! The graph of a Llama in ONNX's text syntax, node for node as PyTorch's exporter writes it.

use std::collections::HashMap;
use std::fmt::{Display, Write};

use super::shape::LlamaShape;
use super::weights::{Kind, Weight};

/// A graph whose weights are inputs so far, and what these are.
pub(super) struct Written {
    /// The graph.
    pub(super) text: String,
    /// Its last inputs, in this order.
    pub(super) weights: Vec<Weight>,
}

/// Writes the graph with floats of the type `float`, in the text syntax's words.
pub(super) fn write(shape: &LlamaShape, float: &str) -> Written {
    let mut exporter =
        Exporter { shape, float, nodes: String::new(), weights: Vec::new(), used: HashMap::new() };
    exporter.decoder();
    exporter.finish()
}

struct Exporter<'a> {
    shape: &'a LlamaShape,
    float: &'a str,
    nodes: String,
    weights: Vec<Weight>,
    /// How often each name was asked for.
    used: HashMap<String, usize>,
}

/// Values that all blocks read.
struct Common {
    /// Sizes as `[1]` tensors, and the sequence as a scalar.
    batch: String,
    sequence: String,
    sequence_scalar: String,
    /// Past positions by cache, keys and values of each block, as scalars.
    pasts: Vec<[String; 2]>,
    mask: String,
    /// Angles of the rotary embedding `[batch, sequence, head_size / 2]`, f32.
    angles: String,
}

impl Exporter<'_> {
    /// A name that is free: `hint`, `hint_1`, `hint_2`…
    fn name(&mut self, hint: &str) -> String {
        let used = self.used.entry(hint.to_owned()).or_default();
        *used += 1;
        if *used == 1 { hint.to_owned() } else { format!("{hint}_{}", *used - 1) }
    }

    /// Adds a node whose output is called after `hint`.
    fn node(&mut self, hint: &str, call: impl Display) -> String {
        let name = self.name(hint);
        self.named(&name, call);
        name
    }

    /// Adds a node whose output is called `name`.
    fn named(&mut self, name: &str, call: impl Display) {
        writeln!(self.nodes, "   [\"node_{name}\"] \"{name}\" = {call}").expect("writes to memory");
    }

    fn weight(&mut self, name: String, shape: &[usize], kind: Kind) -> String {
        self.weights.push(Weight { name: name.clone(), shape: shape.to_vec(), kind });
        name
    }

    /// A linear layer without bias; its weight has no name of its own.
    fn linear(&mut self, x: &str, inputs: usize, outputs: usize, kind: Kind) -> String {
        let name = self.name("val");
        let weight = self.weight(name, &[inputs, outputs], kind);
        self.node("linear", format_args!("MatMul ({x}, {weight})"))
    }

    fn norm(&mut self, x: &str, module: &str) -> String {
        let weight = format!("model.model.{module}.weight");
        let weight = self.weight(weight, &[self.shape.hidden], Kind::Norm);
        let epsilon = self.shape.epsilon;
        let attributes = format!("axis = -1, epsilon: float = {epsilon:e}, stash_type = 1");
        self.node("mul", format_args!("RMSNormalization <{attributes}> ({x}, \"{weight}\")"))
    }

    fn decoder(&mut self) {
        let (hidden, vocabulary) = (self.shape.hidden, self.shape.vocabulary);
        let table = "model.model.embed_tokens.weight".to_owned();
        let table = self.weight(table, &[vocabulary, hidden], Kind::IntoStream);
        let common = self.common();
        let mut x =
            self.node("embedding", format_args!("Gather <axis = 0> (\"{table}\", input_ids)"));
        for layer in 0..self.shape.layers {
            x = self.block(&x, layer, &common);
        }
        let x = self.norm(&x, "norm");
        let name = self.name("val");
        let head = self.weight(name, &[hidden, vocabulary], Kind::Matrix);
        self.named("logits", format_args!("MatMul ({x}, {head})"));
    }

    fn common(&mut self) -> Common {
        let sequence = self.size("input_ids", 1);
        let sequence_scalar = self.node("sym_size_int", format_args!("Squeeze ({sequence})"));
        let batch = self.size("past_key_values.0.key", 0);
        let batch_scalar = self.node("sym_size_int", format_args!("Squeeze ({batch})"));
        let pasts: Vec<_> = (0..self.shape.layers)
            .map(|layer| {
                ["key", "value"].map(|kind| {
                    let size = self.size(&format!("past_key_values.{layer}.{kind}"), 2);
                    self.node("sym_size_int", format_args!("Squeeze ({size})"))
                })
            })
            .collect();
        let mask = self.mask(&batch, &batch_scalar, &sequence, &sequence_scalar, &pasts[0][0]);
        let positions = self.node("unsqueeze", "Unsqueeze (position_ids, axis_2)");
        let positions = self.node("_to_copy", format_args!("Cast <to = 1> ({positions})"));
        let frequencies = "\"model.model.rotary_emb.inv_freq\"";
        let angles = self.node("mul", format_args!("Mul ({positions}, {frequencies})"));
        Common { batch, sequence, sequence_scalar, pasts, mask, angles }
    }

    /// The size of an axis as a `[1]` tensor.
    fn size(&mut self, value: &str, axis: usize) -> String {
        let end = axis + 1;
        self.node("val", format_args!("Shape <start = {axis}, end = {end}> (\"{value}\")"))
    }

    /// `attention_mask` and causality: bool `[batch, 1, sequence, total]`.
    fn mask(
        &mut self,
        batch: &str,
        batch_scalar: &str,
        sequence: &str,
        sequence_scalar: &str,
        past: &str,
    ) -> String {
        let total = self.node("add", format_args!("Add ({past}, {sequence_scalar})"));
        let padding = self.node("_to_copy", "Cast <to = 9> (attention_mask)");
        let range = |end: &str| format!("Range (zero, {end}, one)");
        let rows = self.node("arange", range(batch_scalar));
        let queries = self.node("arange", range(sequence_scalar));
        let queries = self.node("add", format_args!("Add ({queries}, {past})"));
        let keys = self.node("arange", range(&total));
        let rows = self.unsqueeze(&[&rows, "axes_1_2", "axis_3"]);
        let queries = self.unsqueeze(&[&queries, "axes_0_1", "axis_3"]);
        let keys = self.unsqueeze(&[&keys, "axes_0_1", "axis_2"]);
        let causal = self.node("le", format_args!("LessOrEqual ({keys}, {queries})"));
        let causal = self.node("bitwise_and", format_args!("And (new_ones, {causal})"));
        let grid = self.node("val", format_args!("Max ({rows}, {keys})"));
        let grid = self.node("val", format_args!("Shape <start = 0> ({grid})"));
        let indices = [&rows, &keys].map(|index| {
            let index = self.node("val", format_args!("Expand ({index}, {grid})"));
            self.unsqueeze(&[&index, "last_axis"])
        });
        let indices = indices.join(", ");
        let indices = self.node("val", format_args!("Concat <axis = -1> ({indices})"));
        let call = format!("GatherND <batch_dims = 0> ({padding}, {indices})");
        let padding = self.node("val", call);
        let mask = self.node("bitwise_and", format_args!("And ({causal}, {padding})"));
        let total = self.flat(&total);
        let size = format!("Concat <axis = 0> ({batch}, size_1, {sequence}, {total})");
        let size = self.node("val", size);
        self.node("expand", format_args!("Expand ({mask}, {size})"))
    }

    /// The first name, unsqueezed by the axes that follow, one after the other.
    fn unsqueeze(&mut self, value_and_axes: &[&str]) -> String {
        let mut value = value_and_axes[0].to_owned();
        for axes in &value_and_axes[1..] {
            value = self.node("unsqueeze", format_args!("Unsqueeze ({value}, {axes})"));
        }
        value
    }

    /// A scalar as a `[1]` tensor.
    fn flat(&mut self, scalar: &str) -> String {
        self.node("val", format_args!("Reshape <allowzero = 0> ({scalar}, last_axis)"))
    }

    fn block(&mut self, x: &str, layer: usize, common: &Common) -> String {
        let (hidden, intermediate) = (self.shape.hidden, self.shape.intermediate);
        let y = self.norm(x, &format!("layers.{layer}.input_layernorm"));
        let y = self.attention(&y, layer, common);
        let x = self.node("add", format_args!("Add ({x}, {y})"));
        let y = self.norm(&x, &format!("layers.{layer}.post_attention_layernorm"));
        let gate = self.linear(&y, hidden, intermediate, Kind::Matrix);
        let sigmoid = self.node("val", format_args!("Sigmoid ({gate})"));
        let silu = self.node("silu", format_args!("Mul ({gate}, {sigmoid})"));
        let up = self.linear(&y, hidden, intermediate, Kind::Matrix);
        let product = self.node("mul", format_args!("Mul ({silu}, {up})"));
        let y = self.linear(&product, intermediate, hidden, Kind::IntoStream);
        self.node("add", format_args!("Add ({x}, {y})"))
    }

    fn attention(&mut self, x: &str, layer: usize, common: &Common) -> String {
        let shape = self.shape;
        let Common { batch, sequence, mask, .. } = common;
        let parts = [shape.heads, shape.kv_heads, shape.kv_heads];
        let [query, key, value] = parts.map(|heads| {
            let part = self.linear(x, shape.hidden, heads * shape.head_size, Kind::Matrix);
            let size = format!("Concat <axis = 0> ({batch}, {sequence}, last_axis, size_head)");
            let size = self.node("val", size);
            let part = self.node("view", format_args!("Reshape <allowzero = 1> ({part}, {size})"));
            self.node("transpose", format_args!("Transpose <perm = [0, 2, 1, 3]> ({part})"))
        });
        let query = self.rotate(&query, shape.heads, common);
        let key = self.rotate(&key, shape.kv_heads, common);
        let caches = [("key", key), ("value", value)];
        for (kind, new) in &caches {
            let parts = format!("\"past_key_values.{layer}.{kind}\", {new}");
            let present = format!("present.{layer}.{kind}");
            self.named(&present, format_args!("Concat <axis = -2> ({parts})"));
        }
        let [key, value] = [0, 1].map(|i| self.expand_heads(layer, i, caches[i].0, common));
        let scale = 1.0 / (shape.head_size as f32).sqrt();
        let attributes = format!(
            "is_causal = 0, qk_matmul_output_mode = 0, scale: float = {scale:e}, \
             softcap: float = 0.0"
        );
        let call = format!("Attention <{attributes}> ({query}, {key}, {value}, {mask})");
        let y = self.node("scaled_dot_product_attention", call);
        let y = self.node("transpose", format_args!("Transpose <perm = [0, 2, 1, 3]> ({y})"));
        let size = format!("Concat <axis = 0> ({batch}, {sequence}, last_axis)");
        let size = self.node("val", size);
        let y = self.node("view", format_args!("Reshape <allowzero = 1> ({y}, {size})"));
        self.linear(&y, shape.heads * shape.head_size, shape.hidden, Kind::IntoStream)
    }

    /// Rotary embedding; tables are computed in f32, and anew for each use.
    fn rotate(&mut self, x: &str, heads: usize, common: &Common) -> String {
        let [cos, sin] = ["Cos", "Sin"].map(|op| {
            let table = self.node("val", format_args!("{op} ({})", common.angles));
            match self.float {
                "float" => table,
                _ => self.node("_to_copy", format_args!("Cast <to = 10> ({table})")),
            }
        });
        let attributes = format!("interleaved = 0, num_heads = {heads}");
        self.node("add", format_args!("RotaryEmbedding <{attributes}> ({x}, {cos}, {sin})"))
    }

    /// One head of keys or values for every query head.
    fn expand_heads(&mut self, layer: usize, index: usize, kind: &str, common: &Common) -> String {
        let Common { batch, sequence_scalar, pasts, .. } = common;
        let past = &pasts[layer][index];
        let total = self.node("add", format_args!("Add ({past}, {sequence_scalar})"));
        let total = self.flat(&total);
        let present = format!("\"present.{layer}.{kind}\"");
        let present = self.unsqueeze(&[&present, "axis_2"]);
        let parts = format!("{batch}, size_kv_heads, size_group, {total}, size_head");
        let size = self.node("val", format_args!("Concat <axis = 0> ({parts})"));
        let expanded = self.node("expand", format_args!("Expand ({present}, {size})"));
        let parts = format!("{batch}, size_heads, {total}, size_head");
        let size = self.node("val", format_args!("Concat <axis = 0> ({parts})"));
        self.node("_unsafe_view", format_args!("Reshape <allowzero = 1> ({expanded}, {size})"))
    }

    fn finish(self) -> Written {
        let text = format!(
            "<ir_version: 10, opset_import: [\"\" : 23], producer_name: \"pytorch\">\n\
             main_graph (\n{}) => (\n{})\n<\n{}>\n{{\n{}}}\n",
            self.inputs(),
            self.outputs(),
            self.constants(),
            self.nodes
        );
        Written { text, weights: self.weights }
    }

    fn inputs(&self) -> String {
        let mut lines = vec![
            "int64[batch, sequence_length] input_ids".to_owned(),
            "int64[batch, total_sequence_length] attention_mask".to_owned(),
            "int64[batch, sequence_length] position_ids".to_owned(),
        ];
        lines.extend(self.caches("past_key_values", "past_sequence_length"));
        for weight in &self.weights {
            let sizes: Vec<String> = weight.shape.iter().map(usize::to_string).collect();
            lines.push(format!("{}[{}] \"{}\"", self.float, sizes.join(", "), weight.name));
        }
        lines.join(",\n")
    }

    fn outputs(&self) -> String {
        let vocabulary = self.shape.vocabulary;
        let logits = format!("{}[batch, sequence_length, {vocabulary}] logits", self.float);
        let caches = self.caches("present", "\"past_sequence_length + sequence_length\"");
        [vec![logits], caches].concat().join(",\n")
    }

    fn caches(&self, prefix: &str, length: &str) -> Vec<String> {
        let LlamaShape { kv_heads, head_size, .. } = self.shape;
        let ty = format!("{}[batch, {kv_heads}, {length}, {head_size}]", self.float);
        let caches = (0..self.shape.layers).flat_map(|i| ["key", "value"].map(|kind| (i, kind)));
        caches.map(|(i, kind)| format!("{ty} \"{prefix}.{i}.{kind}\"")).collect()
    }

    /// Small constants.
    fn constants(&self) -> String {
        let shape = self.shape;
        let half = shape.head_size / 2;
        let exponent = |i: usize| (2 * i) as f64 / shape.head_size as f64;
        let frequency = |i: usize| (1.0 / shape.rope_theta.powf(exponent(i))) as f32;
        let frequencies: Vec<String> = (0..half).map(|i| format!("{:e}", frequency(i))).collect();
        let mut lines = vec![
            format!(
                "float[{half}] \"model.model.rotary_emb.inv_freq\" = {{{}}}",
                frequencies.join(", ")
            ),
            "bool new_ones = {1}".to_owned(),
            "int64 zero = {0}".to_owned(),
            "int64 one = {1}".to_owned(),
            "int64[2] axes_0_1 = {0, 1}".to_owned(),
            "int64[2] axes_1_2 = {1, 2}".to_owned(),
        ];
        let group = shape.heads / shape.kv_heads;
        let vectors = [
            ("last_axis", -1),
            ("axis_2", 2),
            ("axis_3", 3),
            ("size_1", 1),
            ("size_heads", shape.heads as i64),
            ("size_kv_heads", shape.kv_heads as i64),
            ("size_group", group as i64),
            ("size_head", shape.head_size as i64),
        ];
        lines.extend(vectors.map(|(name, value)| format!("int64[1] {name} = {{{value}}}")));
        lines.join(",\n")
    }
}
