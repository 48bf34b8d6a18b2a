//! Floats of 16 bits, which are how weights are stored, but nothing that is computed with.

use std::collections::HashSet;

use planish_ir::{Attribute, DataType, Graph, Model, Node, NodeId, Tensor, ValueId, ValueType};
use planish_kernels::infer::Facts;

use crate::half::{cast_to, cast_value, is_half, is_weight_type, set_dtype};
use crate::pass::{PassContext, PassError};

/// Attributes that name the type of an output, or of what happens inside.
const TYPE_ATTRIBUTES: [&str; 5] =
    ["to", "dtype", "output_dtype", "stash_type", "softmax_precision"];

/// Makes all activations f32 where an export computes in f16 or bf16.
///
/// Matrices stay as they are, views of the file: a product takes its right factor in any float
/// type, and of a table of embeddings the rows that were looked up are cast. Other constants are
/// small and become f32. Inputs and outputs of the graph keep their types: a `Cast` follows or
/// precedes each.
pub(super) fn widen_floats(
    model: &mut Model,
    context: &mut PassContext,
) -> Result<usize, PassError> {
    if !has_halves(&model.graph) {
        return Ok(0);
    }
    if !model.functions.is_empty() || has_subgraphs(&model.graph) {
        context.note("functions or subgraphs: floats of 16 bits are left as they are");
        return Ok(0);
    }
    let facts = context.infer(model)?;
    let mut widening = Widening { graph: &mut model.graph, facts: &facts, n_rewrites: 0 };
    widening.absorb_casts();
    widening.widen_inputs();
    let boundary = widening.narrow_outputs();
    widening.widen_nodes(&boundary);
    let kept = widening.widen_constants();
    widening.declare(&kept);
    let n_rewrites = widening.n_rewrites;
    model.graph.remove_dead();
    Ok(n_rewrites)
}

fn has_halves(graph: &Graph) -> bool {
    let casts = |id: NodeId| {
        let to = graph.node(id).int("to", 0) as i32;
        graph.node(id).is("Cast") && DataType::from_onnx(to).is_some_and(is_half)
    };
    graph.value_ids().any(|id| graph.value(id).dtype().is_some_and(is_half))
        || graph.node_ids().any(casts)
}

fn has_subgraphs(graph: &Graph) -> bool {
    graph.node_ids().any(|id| graph.node(id).attributes.values().any(|a| !a.graphs().is_empty()))
}

struct Widening<'a> {
    graph: &'a mut Graph,
    /// What was known before.
    facts: &'a Facts,
    n_rewrites: usize,
}

impl Widening<'_> {
    fn nodes(&self) -> Vec<NodeId> {
        self.graph.node_ids().collect()
    }

    fn is_half(&self, value: ValueId) -> bool {
        let dtype = self.facts.get(value).dtype.or(self.graph.value(value).dtype());
        dtype.is_some_and(is_half)
    }

    /// A weight that the file casts to f32 is read as it is stored.
    fn absorb_casts(&mut self) {
        for id in self.nodes() {
            let node = self.graph.node(id);
            let (Some(source), Some(output)) = (node.input(0), node.output(0)) else { continue };
            let is_weight = self.graph.constant(source).is_some_and(|t| is_half(t.dtype()));
            if is_weight && is_cast_to_f32(node) && !self.graph.is_output(output) {
                self.graph.replace_value(output, source);
                self.n_rewrites += usize::from(!self.is_read_as_stored(source));
            }
        }
        self.graph.remove_dead();
    }

    /// Whether all that reads a constant takes it in any float type.
    fn is_read_as_stored(&self, value: ValueId) -> bool {
        self.graph.users(value).into_iter().all(|(user, at)| self.takes_any(user, at))
    }

    /// What reads an input reads it as f32; only its shape is taken from the input itself.
    fn widen_inputs(&mut self) {
        for input in self.graph.inputs.clone() {
            if !self.is_half(input) {
                continue;
            }
            let users = self.graph.users(input).into_iter().filter(|(user, _)| {
                let node = self.graph.node(*user);
                !node.is("Shape") && !is_cast_to_f32(node)
            });
            let users: Vec<_> = users.collect();
            if users.is_empty() {
                continue;
            }
            let wide = cast_value(self.graph, input, DataType::F32);
            for (user, at) in users {
                self.graph.set_input(user, at, Some(wide));
            }
            self.n_rewrites += 1;
        }
    }

    /// Lets every output of 16 bits be written by a `Cast`; returns these.
    fn narrow_outputs(&mut self) -> HashSet<NodeId> {
        let mut boundary = HashSet::new();
        for output in self.graph.outputs.clone() {
            let Some((id, at)) = self.graph.producer(output) else { continue };
            if !self.is_half(output) || boundary.contains(&id) {
                continue;
            }
            let wide = match self.source_of_boundary(id, output) {
                Some(source) => {
                    boundary.insert(id);
                    source
                }
                None => {
                    let (wide, cast) = self.narrow(id, at, output);
                    boundary.insert(cast);
                    wide
                }
            };
            for (user, at) in self.graph.users(output) {
                self.graph.set_input(user, at, Some(wide));
                self.n_rewrites += 1;
            }
        }
        boundary
    }

    /// What an output's producer casts to its type, if that is what it does.
    fn source_of_boundary(&self, id: NodeId, output: ValueId) -> Option<ValueId> {
        let node = self.graph.node(id);
        let to = DataType::from_onnx(node.int("to", 0) as i32);
        let casts = node.is("Cast") && to == self.facts.get(output).dtype;
        let is_float = |source| self.facts.get(source).dtype.is_some_and(is_weight_type);
        node.input(0).filter(|source| casts && is_float(*source) && !self.graph.is_input(*source))
    }

    /// Puts a `Cast` between a node and the graph output that it writes.
    fn narrow(&mut self, id: NodeId, at: usize, output: ValueId) -> (ValueId, NodeId) {
        let name = format!("{}/wide", self.graph.value(output).name);
        let wide = self.graph.new_value(&name, ValueType::Unknown);
        let mut node = self.graph.remove_node(id);
        node.outputs[at] = Some(wide);
        self.graph.add_node(node).expect("its outputs are free");
        let dtype = self.facts.get(output).dtype.unwrap_or(DataType::F16);
        let name = format!("{}/cast", self.graph.value(output).name);
        let cast = cast_to(wide, dtype).with_name(name).with_outputs(vec![Some(output)]);
        self.n_rewrites += 1;
        (wide, self.graph.add_node(cast).expect("the output was just freed"))
    }

    /// Types and tensors in attributes, but for the casts to outputs.
    fn widen_nodes(&mut self, boundary: &HashSet<NodeId>) {
        for id in self.nodes().into_iter().filter(|id| !boundary.contains(id)) {
            for (name, value) in &mut self.graph.node_mut(id).attributes {
                match value {
                    Attribute::Int(code)
                        if TYPE_ATTRIBUTES.contains(&name.as_str())
                            && DataType::from_onnx(*code as i32).is_some_and(is_half) =>
                    {
                        *code = i64::from(DataType::F32.to_onnx());
                        self.n_rewrites += 1;
                    }
                    Attribute::Tensor(tensor) if is_half(tensor.dtype()) => {
                        *tensor = widened(tensor);
                        self.n_rewrites += 1;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Returns the values that stay as they are.
    fn widen_constants(&mut self) -> HashSet<ValueId> {
        let mut kept = HashSet::new();
        for id in self.graph.value_ids().collect::<Vec<_>>() {
            let Some(tensor) = self.graph.constant(id).filter(|t| is_half(t.dtype())) else {
                continue;
            };
            let users = self.graph.users(id);
            let is_kept = self.graph.is_output(id)
                || tensor.shape().len() == 2
                    && users.iter().any(|(user, at)| self.takes_any(*user, *at));
            if is_kept {
                self.keep(id, &mut kept);
            } else {
                let wide = widened(tensor);
                let value = self.graph.value_mut(id);
                value.constant = Some(wide);
                set_dtype(value, DataType::F32);
                self.n_rewrites += 1;
            }
        }
        kept
    }

    /// Whether a node reads its input `at` in any float type, or hands it on to such.
    fn takes_any(&self, id: NodeId, at: usize) -> bool {
        let node = self.graph.node(id);
        match (node.op_type.as_str(), at) {
            _ if !node.domain.is_empty() => false,
            ("MatMul" | "Gemm", 1) | ("Gather", 0) => true,
            ("Transpose" | "Identity", 0) => node.output(0).is_some_and(|output| {
                let users = self.graph.users(output);
                !self.graph.is_output(output)
                    && users.into_iter().any(|(user, at)| self.takes_any(user, at))
            }),
            _ => false,
        }
    }

    /// Keeps a value of 16 bits; what does not take it so gets it cast.
    fn keep(&mut self, value: ValueId, kept: &mut HashSet<ValueId>) {
        kept.insert(value);
        let mut wide = None;
        for (user, at) in self.graph.users(value) {
            let node = self.graph.node(user);
            if !self.takes_any(user, at) {
                if !is_cast_to_f32(node) {
                    let cast = || cast_value(self.graph, value, DataType::F32);
                    let wide = *wide.get_or_insert_with(cast);
                    self.graph.set_input(user, at, Some(wide));
                    self.n_rewrites += 1;
                }
                continue;
            }
            let Some(output) = node.output(0) else { continue };
            match node.op_type.as_str() {
                "Gather" => {
                    kept.insert(output);
                    self.widen_lookup(output);
                }
                "Transpose" | "Identity" => self.keep(output, kept),
                _ => {}
            }
        }
    }

    /// What reads rows of a table reads them as f32.
    fn widen_lookup(&mut self, rows: ValueId) {
        let casts = |(user, _): &(NodeId, usize)| !is_cast_to_f32(self.graph.node(*user));
        let users: Vec<_> = self.graph.users(rows).into_iter().filter(casts).collect();
        if users.is_empty() {
            return;
        }
        let wide = cast_value(self.graph, rows, DataType::F32);
        for (user, at) in users {
            self.graph.set_input(user, at, Some(wide));
        }
        self.n_rewrites += 1;
    }

    /// Brings the types that stand in the file in line.
    fn declare(&mut self, kept: &HashSet<ValueId>) {
        for id in self.graph.value_ids().collect::<Vec<_>>() {
            let stays = kept.contains(&id) || self.graph.is_input(id) || self.graph.is_output(id);
            if !stays && self.graph.value(id).dtype().is_some_and(is_half) {
                set_dtype(self.graph.value_mut(id), DataType::F32);
            }
        }
    }
}

fn is_cast_to_f32(node: &Node) -> bool {
    node.is("Cast") && node.int("to", 0) == i64::from(DataType::F32.to_onnx())
}

/// A tensor of 16-bit floats in 32 bits.
fn widened(tensor: &Tensor) -> Tensor {
    Tensor::from_vec(tensor.shape(), tensor.to_f32_vec().expect("its elements are floats"))
}
